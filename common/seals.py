"""What this project adds to an archive so that it names itself and proves its own wholeness, years later, offline.

An SQL text begins with a comment holding the archive's header and ends with a comment holding size and SHA-256 of all
before it. A tar begins and ends with a member that does the same. A pg_dump archive in custom format has room only
behind its end, where such comments follow; pg_restore never reads so far. None of it disturbs psql, pg_restore or tar.
The last part has a fixed length, so a reader that keeps that much back can check a stream of any size.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Iterator

from common.errors import ArchiveDamagedError, ArchiveTruncatedError
from common.fingerprints import Fingerprint
from common.headers import ArchiveHeader

RESERVED_DIRECTORY = ".mathison-data"
"""Where our members of a tar are; no member of a user's may be there."""
TAR_OPENING = f"{RESERVED_DIRECTORY}/archive.json"
TAR_FINGERPRINT = f"{RESERVED_DIRECTORY}/fingerprint.json"
"""The member before the last, where the content's fingerprint was taken."""
TAR_CLOSING = f"{RESERVED_DIRECTORY}/digest.json"
SQL_FINGERPRINT = b"-- mathison-data fingerprint: "
"""Begins the line before the last, likewise."""

_SQL_OPENING = b"-- mathison-data archive: "
_DUMP_START = b"PGDMP"
DUMP_CLOSING_START = b"\n" + _SQL_OPENING
"""Behind the end of a pg_dump archive in custom format: what we have added, up to the end of the file."""
_SQL_CLOSING_LINE = b"-- mathison-data digest: sha256 %s of %20d bytes\n"
_SQL_CLOSING = re.compile(rb"^-- mathison-data digest: sha256 ([0-9a-f]{64}) of ([ 0-9]{20}) bytes\n$")
_SQL_CLOSING_BYTES = len(_SQL_CLOSING_LINE % (bytes(64), 0))
_TAR_CLOSING_TEXT = b'{"sha256":"%s","size_bytes":%20d}\n'
_TAR_CLOSING = re.compile(rb'^\{"sha256":"([0-9a-f]{64})","size_bytes": *([0-9]{1,20})\}\n$')
_BLOCK = tarfile.BLOCKSIZE
_TAR_CLOSING_BYTES = 4 * _BLOCK
_TAR_END_ZEROS = 3 * _BLOCK - len(_TAR_CLOSING_TEXT % (bytes(64), 0))
"""What is behind the closing's text: the rest of its block and two empty ones. More may follow, as tapes leave them."""
_MAX_OPENING_BYTES = 1 << 20
_MAX_CLOSING_BYTES = 1 << 18


class SealWriter:
    """Counts and hashes what is written. Calls in order: `opening`, any number of `add`, `closing`."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._size_bytes = 0

    def add(self, chunk: bytes) -> None:
        """Bytes of the archive that were written; hashing releases the interpreter lock."""
        self._hash.update(chunk)
        self._size_bytes += len(chunk)


class SqlSealWriter(SealWriter):
    """The first and last line of an SQL text."""

    def opening(self, header: ArchiveHeader) -> bytes:
        """The first line, already counted."""
        line = _SQL_OPENING + header.to_json() + b"\n"
        self.add(line)
        return line

    def closing(self, fingerprint: Fingerprint | None = None) -> bytes:
        """The last lines, to be written right after everything that was added."""
        line = SQL_FINGERPRINT + fingerprint.to_json() + b"\n" if fingerprint else b""
        self.add(line)
        return line + _SQL_CLOSING_LINE % (self._hash.hexdigest().encode(), self._size_bytes)


class DumpSealWriter(SealWriter):
    """Lines behind the end of a pg_dump archive in custom format; nothing goes before it."""

    def closing(self, header: ArchiveHeader, fingerprint: Fingerprint | None = None) -> bytes:
        """All of them, to be written right after everything that was added."""
        lines = DUMP_CLOSING_START + header.to_json() + b"\n"
        lines += SQL_FINGERPRINT + fingerprint.to_json() + b"\n" if fingerprint else b""
        self.add(lines)
        return lines + _SQL_CLOSING_LINE % (self._hash.hexdigest().encode(), self._size_bytes)


class TarSealWriter(SealWriter):
    """The first and last member of a tar."""

    def opening(self, header: ArchiveHeader) -> bytes:
        """The first member, already counted."""
        member = _member(TAR_OPENING, header.to_json() + b"\n")
        self.add(member)
        return member

    def closing(self, fingerprint: Fingerprint | None = None) -> bytes:
        """The last members and the two empty blocks that end a tar."""
        before = _member(TAR_FINGERPRINT, fingerprint.to_json() + b"\n") if fingerprint else b""
        self.add(before)
        text = _TAR_CLOSING_TEXT % (self._hash.hexdigest().encode(), self._size_bytes)
        return before + _member(TAR_CLOSING, text) + bytes(2 * _BLOCK)


class _Trimmed:
    """Bytes on their way, with the zeros kept back that may be the end."""

    def __init__(self) -> None:
        self._zeros = 0

    def add(self, chunk: bytes) -> Iterator[bytes]:
        """What is not the end, now that more has come."""
        body = chunk.rstrip(b"\0")
        while body and self._zeros:
            piece = bytes(min(self._zeros, _MAX_CLOSING_BYTES))
            self._zeros -= len(piece)
            yield piece
        if body:
            yield body
        self._zeros += len(chunk) - len(body)

    def end(self) -> bytes:
        """As many of the zeros at the end as belong to a tar."""
        return bytes(min(self._zeros, _TAR_END_ZEROS))


class SealReader:
    """Checks the seal of an archive, if it has one, while it passes by.

    Attributes:
        header: what the archive says of itself; None until its opening was seen, and for archives of others. Of a
            pg_dump archive in custom format it is known only when all of it was seen.
    """

    def __init__(self) -> None:
        self.header: ArchiveHeader | None = None
        self._hash = hashlib.sha256()
        self._size_bytes = 0
        self._held = b""
        self._opening: bytearray | None = bytearray()
        self._closing_bytes = 0
        self._is_sql = False
        self._dump_tail: bytes | None = None
        self._trimmed = _Trimmed()

    @property
    def is_sealed(self) -> bool:
        """The archive has our opening, so it has to have our closing; certain once more than 1 MiB was added.

        A pg_dump archive in custom format has only a closing, so of that it is certain when `finish` has returned.
        """
        return self._closing_bytes > 0 and (self._dump_tail is None or self.header is not None)

    def add(self, chunk: bytes) -> None:
        """The next bytes of the archive, uncompressed. Cheap for archives without a seal.

        Raises:
            ArchiveDamagedError: our opening is there and unreadable.
        """
        if self._opening is not None:
            self._opening += chunk
            if not self._look(self._opening):
                return
            chunk, self._opening = bytes(self._opening), None
        if self._dump_tail is not None:
            self._dump_tail = (self._dump_tail + chunk[-_MAX_CLOSING_BYTES:])[-_MAX_CLOSING_BYTES:]
        if self._closing_bytes:
            for piece in [chunk] if self._is_sql else self._trimmed.add(chunk):
                self._put(piece)

    def finish(self) -> None:
        """The archive has ended.

        Raises:
            ArchiveTruncatedError: it has our opening and not our closing.
            ArchiveDamagedError: size or SHA-256 differ from its closing.
        """
        if self._opening is not None:
            opening, self._opening = bytes(self._opening), None
            if opening.startswith(_SQL_OPENING) or _tar_name(opening) == TAR_OPENING:
                raise ArchiveTruncatedError("The file is cut off within its header.", next_step="Send the whole file.")
            return
        if not self._closing_bytes:
            return
        if not self._is_sql:
            self._put(self._trimmed.end())
        closing = _SQL_CLOSING.match(self._held) if self._is_sql else _tar_closing(self._held)
        if self._dump_tail is not None:
            start = self._dump_tail.rfind(DUMP_CLOSING_START)
            if closing is None or start < 0:
                return
            line = self._dump_tail[start + len(DUMP_CLOSING_START) :].partition(b"\n")[0]
            self._found(line, is_sql=True)
        if closing is None:
            raise ArchiveTruncatedError(
                "The file is cut off or was added to: it begins as an archive of ours and does not end as one.",
                next_step="Send the whole file, as it was exported.",
            )
        size_bytes = self._size_bytes - self._closing_bytes
        if (closing[1].decode(), int(closing[2])) != (self._hash.hexdigest(), size_bytes):
            raise ArchiveDamagedError(
                "The file is damaged: its content does not have the SHA-256 that stands at its end.",
                next_step="Take another copy of the file, or export again.",
            )

    def _put(self, chunk: bytes) -> None:
        """Hash all but what may be the closing."""
        self._size_bytes += len(chunk)
        together = self._held + chunk if len(chunk) < self._closing_bytes else chunk
        if together is chunk:
            self._hash.update(self._held)
        self._hash.update(memoryview(together)[: -self._closing_bytes])
        self._held = together[-self._closing_bytes :]

    def _look(self, opening: bytearray) -> bool:
        """Whether enough was seen to know; sets what was found."""
        if opening.startswith(_DUMP_START):
            self._dump_tail, self._is_sql, self._closing_bytes = b"", True, _SQL_CLOSING_BYTES
            return True
        if opening.startswith(_SQL_OPENING[: len(opening)]):
            end = opening.find(b"\n")
            if end >= 0:
                self._found(bytes(opening[len(_SQL_OPENING) : end]), is_sql=True)
                return True
            return len(opening) > _MAX_OPENING_BYTES
        if len(opening) < _BLOCK:
            return False
        if _tar_name(opening) != TAR_OPENING:
            return True
        member = tarfile.TarInfo.frombuf(bytes(opening[:_BLOCK]), "utf-8", "surrogateescape")
        if member.size > _MAX_OPENING_BYTES:
            return True
        if len(opening) < _BLOCK + member.size:
            return False
        self._found(bytes(opening[_BLOCK : _BLOCK + member.size]), is_sql=False)
        return True

    def _found(self, text: bytes, *, is_sql: bool) -> None:
        try:
            self.header = ArchiveHeader.from_json(text)
        except ValueError as failure:
            raise ArchiveDamagedError("The file is damaged: its header cannot be read.") from failure
        self._is_sql = is_sql
        self._closing_bytes = _SQL_CLOSING_BYTES if is_sql else _TAR_CLOSING_BYTES


def is_dump_closing(text: bytes) -> bool:
    """Whether what stands behind the end of a pg_dump archive in custom format is what we add there, whole."""
    last = text[-_SQL_CLOSING_BYTES:]
    return text.startswith(DUMP_CLOSING_START) and _SQL_CLOSING.match(last) is not None


class FingerprintFinder:
    """Finds the fingerprint in an archive's closing part while the archive passes by; SealReader says whether it is
    ours and whole.
    """

    def __init__(self) -> None:
        self._tail = b""
        self._trimmed = _Trimmed()

    def add(self, chunk: bytes) -> None:
        """The next bytes of the archive, uncompressed."""
        for piece in self._trimmed.add(chunk):
            self._tail = piece[-_MAX_CLOSING_BYTES:] if len(piece) >= _MAX_CLOSING_BYTES else self._tail + piece
            if len(self._tail) > 2 * _MAX_CLOSING_BYTES:
                self._tail = self._tail[-_MAX_CLOSING_BYTES:]

    def fingerprint(self) -> Fingerprint | None:
        """What was found, once all was added; None: there is none."""
        tail = self._tail + self._trimmed.end()
        return _sql_fingerprint(tail) or _tar_fingerprint(tail)


def _sql_fingerprint(tail: bytes) -> Fingerprint | None:
    lines = tail.rsplit(b"\n", 3)
    is_there = len(lines) == 4 and _SQL_CLOSING.match(lines[2] + b"\n") and lines[1].startswith(SQL_FINGERPRINT)
    return read_fingerprint(lines[1].removeprefix(SQL_FINGERPRINT)) if is_there else None


def _tar_fingerprint(tail: bytes) -> Fingerprint | None:
    start = tail.rfind(TAR_FINGERPRINT.encode() + b"\0")
    if start < 0 or _tar_closing(tail[-_TAR_CLOSING_BYTES:]) is None or _tar_name(tail[start:]) != TAR_FINGERPRINT:
        return None
    size = tarfile.TarInfo.frombuf(tail[start : start + _BLOCK], "utf-8", "surrogateescape").size
    return read_fingerprint(tail[start + _BLOCK : start + _BLOCK + size])


def read_fingerprint(text: bytes) -> Fingerprint:
    """From the JSON in an archive; ArchiveDamagedError for anything else."""
    try:
        return Fingerprint.from_json(text)
    except ValueError as failure:
        raise ArchiveDamagedError("The file is damaged: its fingerprint cannot be read.") from failure


def _member(name: str, content: bytes) -> bytes:
    """A plain ustar member, the same on every run: no time, no owner."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % _BLOCK)


def _tar_name(block: bytes | bytearray) -> str | None:
    try:
        return tarfile.TarInfo.frombuf(bytes(block[:_BLOCK]), "utf-8", "surrogateescape").name
    except tarfile.TarError:
        return None


def _tar_closing(held: bytes) -> re.Match[bytes] | None:
    if len(held) != _TAR_CLOSING_BYTES or any(held[2 * _BLOCK :]) or _tar_name(held) != TAR_CLOSING:
        return None
    return _TAR_CLOSING.match(held[_BLOCK : 2 * _BLOCK].rstrip(b"\0"))
