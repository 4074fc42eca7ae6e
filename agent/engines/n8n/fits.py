"""Whether a key opens what is secret in n8n's database, and what the child is asked that tries it."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from agent.engines.n8n.secret_rows import Credential, WrappedKey


@dataclass
class Fit:
    """How much of what is secret a key opens.

    Attributes:
        unreadable: places, for a person.
        keys_differ: a row of deployment_key does not open, without which n8n 2 does not start.
    """

    readable: int = 0
    unreadable: list[str] = field(default_factory=list)
    keys_differ: bool = False

    @property
    def is_right(self) -> bool:
        """It is the key of this data: single credentials may be unreadable since long ago."""
        return not self.keys_differ and (self.readable > 0 or not self.unreadable)


class Request(msgspec.Struct, frozen=True):
    """What the child is asked: rows that were read, and the key to try on them."""

    wrapped: list[WrappedKey]
    credentials: list[Credential]
    key: str
