"""The encryption key as a member of an export, and what is to be said about it."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from agent.archives import tarblocks as tar
from agent.archives.members import Kind, Member
from agent.archives.writing import PIECE_BYTES
from agent.engines.n8n.facts import Facts
from agent.engines.n8n.folder import CLEAR_KEY, SEALED_KEY
from agent.engines.n8n.key_notes import fingerprint_of
from agent.engines.n8n.sealing import seal
from agent.engines.n8n.wishes import ExportWishes
from common.wording import some_of

_MOST_NAMES = 3
_NO_KEY = (
    "The encryption key is not in the archive, so its credentials can be read only where n8n has the same key. Give a "
    "recipient or a passphrase to have it sealed in, and keep the key itself in a safe place."
)


@dataclass(frozen=True)
class TravellingKey:
    """How the key goes along; `member` is empty when it does not."""

    name: str = ""
    member: bytes = b""
    said: str = "not in the archive"
    warnings: tuple[str, ...] = ()
    fingerprint: str = ""

    def blocks(self) -> Iterator[bytes]:
        """Its member of the tar."""
        if self.member:
            yield from member_blocks(self.name, io.BytesIO(self.member))

    @property
    def details(self) -> dict[str, str]:
        """For the archive's header."""
        found = {"encryption_key": self.said, "key_fingerprint": self.fingerprint}
        return {name: text for name, text in found.items() if text}


def member_blocks(name: str, file: BinaryIO) -> Iterator[bytes]:
    """A file of ours as a member of a tar."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    seconds = int(time.time())
    info = Member(name, Kind.FILE, size=size, mode=0o600, uid=os.geteuid(), gid=os.getegid())
    info.mtime_ns = seconds * 1_000_000_000
    yield tar.header_of(info, stored_bytes=size)
    while piece := file.read(PIECE_BYTES):
        yield piece
    yield tar.padding(size)


async def make_travelling(key: str, facts: Facts, wishes: ExportWishes) -> TravellingKey:
    """Seal the key as it was wished.

    Args:
        key: the instance's; empty: not known.
    Raises:
        InvalidRequestError: a recipient is none of age's.
    """
    if not key:
        text = "The agent does not know n8n's encryption key (encryption_key_file). "
        return TravellingKey(warnings=(text + _NO_KEY,))
    fingerprint = fingerprint_of(key)
    warnings = []
    if not facts.fit.is_right:
        warnings.append(
            "The encryption key that the agent found does not open what is in n8n's database: "
            f"{some_of(facts.fit.unreadable, _MOST_NAMES)}. See that encryption_key_file names the one that n8n uses."
        )
    elif facts.fit.unreadable:
        warnings.append(f"n8n's own key does not open all it has: {some_of(facts.fit.unreadable, _MOST_NAMES)}.")
    if wishes.is_clear:
        warnings.append("The archive holds the encryption key in clear: whoever has it has all credentials.")
        return TravellingKey(CLEAR_KEY, f"{key}\n".encode(), "in clear", tuple(warnings), fingerprint)
    if not wishes.is_sealed:
        return TravellingKey(warnings=(*warnings, _NO_KEY), fingerprint=fingerprint)
    sealed = await seal(key, recipients=wishes.recipients, passphrase=wishes.passphrase)
    said = "sealed for a recipient" if wishes.recipients else "sealed with a passphrase"
    return TravellingKey(SEALED_KEY, sealed, said, tuple(warnings), fingerprint)
