"""What the agent and its sealing child say to each other."""

from __future__ import annotations

import msgspec


class Request(msgspec.Struct, kw_only=True):
    """What to seal or open, and with what.

    Attributes:
        recipients: whom it is sealed for; a passphrase instead of them.
        identities: what may open it, and a passphrase besides.
    """

    opens: bool
    content: bytes
    recipients: list[str] = []
    identities: list[str] = []
    passphrase: str = ""


class Answer(msgspec.Struct, kw_only=True):
    """`reason` is empty on success, otherwise as in `common.errors`."""

    content: bytes = b""
    reason: str = ""
    text: str = ""
    next_step: str = ""
