"""The names in a zip as bytes of a file system, whichever of the ways the program had that wrote them.

The one fact to know: a name without the UTF-8 flag is cp437 only where a program of DOS or Windows wrote it. Info-ZIP
on Linux and the Finder write the bytes that the name has on their disk, and no flag; `zipfile` reads cp437.
Sources: APPNOTE.TXT 4.4.2, 4.4.4 (bit 11), 4.6.9 (the Unicode path); zips of Info-ZIP 3.0 looked at.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import zipfile

_UTF8 = 1 << 11
UNIX_SYSTEMS = (3, 19)
"""Unix and Darwin, as an entry says what wrote it."""
_WINDOWS = (0, 10)
"""Whose programs may separate directories by a backslash."""
_UNICODE_PATH = 0x7075


@dataclass(frozen=True)
class ZipName:
    """
    Attributes:
        text: undecodable bytes as surrogates.
        is_guess: nothing says which characters its bytes stand for; they were taken for those of cp437.
    """

    text: str
    is_guess: bool = False

    @property
    def shown(self) -> str:
        """For a person: undecodable bytes as escapes."""
        return self.text.encode(errors="surrogateescape").decode(errors="backslashreplace")


def name_of(entry: zipfile.ZipInfo) -> ZipName:
    """An entry's name, with slashes between directories."""
    name = _name_of(entry)
    return ZipName(name.text.replace("\\", "/"), name.is_guess) if entry.create_system in _WINDOWS else name


def _name_of(entry: zipfile.ZipInfo) -> ZipName:
    if entry.flag_bits & _UTF8 or entry.orig_filename.isascii():
        return ZipName(entry.orig_filename)
    raw = entry.orig_filename.encode("cp437")
    if entry.create_system in UNIX_SYSTEMS:
        return ZipName(raw.decode(errors="surrogateescape"))
    unicode_path = _unicode_path(entry.extra, raw)
    return ZipName(raw.decode("cp437"), is_guess=True) if unicode_path is None else ZipName(unicode_path)


def _unicode_path(extra: bytes, raw: bytes) -> str | None:
    """The name in UTF-8 that stands beside this one; None where there is none, or one of another name."""
    for kind, content in extra_fields(extra):
        if kind == _UNICODE_PATH and content[:5] == b"\1" + zlib.crc32(raw).to_bytes(4, "little"):
            try:
                return content[5:].decode()
            except UnicodeDecodeError:
                return None
    return None


def extra_fields(extra: bytes) -> list[tuple[int, bytes]]:
    """An entry's extra fields by their kind; what does not hold is left out."""
    fields = []
    while len(extra) >= 4:
        kind, end = int.from_bytes(extra[:2], "little"), 4 + int.from_bytes(extra[2:4], "little")
        fields.append((kind, extra[4:end]))
        extra = extra[end:]
    return fields
