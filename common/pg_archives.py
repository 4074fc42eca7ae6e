"""pg_dump's own archives, read for their structure alone: is all there, and what does it say of itself.

The table of contents is the same in the custom, tar and directory formats; in the custom format the data follows in
blocks. `pg_restore --list` lists a cut file without complaint (PostgreSQL 15 to 18); this finds the cut. Format:
ReadHead, ReadToc and _skipData in src/bin/pg_dump/pg_backup_archiver.c and pg_backup_custom.c.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field

from isal import isal_zlib

from common.errors import (
    ArchiveDamagedError,
    ArchiveError,
    ArchiveIncompatibleError,
    ArchiveTruncatedError,
    ArchiveWrongKindError,
    LimitExceededError,
)
from common.readers import Reader
from common.seals import DUMP_CLOSING_START, is_dump_closing

MAGIC = b"PGDMP"
MINOR_VERSION_AT, FORMAT_AT = 6, 10
"""Where in the file the bytes stand that say the minor version of the format, and which format it is."""
CUSTOM, TAR, DIRECTORY = 1, 3, 5
OLDEST_VERSION, NEWEST_VERSION = (1, 12), (1, 16)
"""Written by pg_dump 9.0 and 17; those between by versions between, 1.16 by 18 too."""
COMPRESSIONS = ("none", "gzip", "lz4", "zstd")
"""By the byte that archives since 1.15 have."""
MOST_ENTRIES = 5_000_000
_MOST_TEXT_BYTES = 512 << 20
_MOST_CLOSING_BYTES = 1 << 20
_KEPT_TEXT_BYTES = 1024
_PIECE_BYTES = 1 << 18
_DATA, _LARGE_OBJECTS = 1, 3
_INFLATE_ERROR: type[Exception] = isal_zlib.error  # type: ignore[assignment]  # its stub calls the class an instance

DUMP_FILE = re.compile(r"(?:toc\.dat|(?:blob_)?[0-9]{1,10}\.dat|blobs(?:_[0-9]{1,10})?\.toc)(?:\.(?:gz|lz4|zst))?")
"""The names that pg_dump gives to files of a dump in directory or tar format."""


@dataclass
class Contents:
    """What the head and the table of contents say.

    Attributes:
        version: of the archive's own format, for example (1, 14).
        format: CUSTOM, TAR or DIRECTORY.
        dumped_at: by the dumping machine's clock, for example "2026-11-23 20:15:00"; it names no timezone.
        database, server_version, dumper_version: empty where it does not say.
        data: for each entry that has data, its number and, in the tar and directory formats, its file's name.
    """

    version: tuple[int, int]
    format: int
    compression: str
    dumped_at: str = ""
    database: str = ""
    server_version: str = ""
    dumper_version: str = ""
    entries: int = 0
    tables: int = 0
    extensions: list[str] = field(default_factory=list)
    data: dict[int, str] = field(default_factory=dict)


def check_custom(
    file: Reader, *, unpacks: bool = False, on_contents: Callable[[Contents], None] = lambda _contents: None
) -> Contents:
    """Read an archive in custom format to its end.

    Args:
        unpacks: see that data compressed with gzip unpacks, too. pg_restore does so when it restores.
        on_contents: called before the data is read, which may be found damaged.
    Raises:
        ArchiveTruncatedError: it ends before its end, or blocks of its tables are missing.
        ArchiveDamagedError: something stands where it cannot stand, or behind its end.
        ArchiveWrongKindError: it is not of the custom format.
        ArchiveIncompatibleError: its version is not known.
    """
    source = _Source(file)
    contents = _contents(source)
    if contents.format != CUSTOM:
        raise ArchiveWrongKindError("The file is only the table of contents of a dump in directory or tar format.")
    on_contents(contents)
    inflates = unpacks and contents.compression == "gzip"
    missing = set(contents.data)
    while (kind := source.ahead(1)) and kind[0] in (_DATA, _LARGE_OBJECTS):
        start = source.position
        source.byte()
        number = source.number()
        if kind[0] == _DATA:
            source.skip_chunks(inflates=inflates)
        else:
            while source.number():
                source.skip_chunks(inflates=inflates)
        if number not in contents.data:
            raise source.damaged(f"the block belongs to no entry ({number})", at=start)
        missing.discard(number)
    if missing and kind:
        raise source.damaged(f"there is no block of the kind {kind[0]}", at=source.position)
    if missing:
        raise ArchiveTruncatedError(
            f"The archive is cut off at byte {source.position}: the data of {len(missing)} of {len(contents.data)} "
            "tables and large objects is missing.",
            next_step="Send the whole file, or make the dump again.",
        )
    _look_behind(source, contents)
    return contents


def read_contents(file: Reader) -> Contents:
    """Read a table of contents that is a file of its own, and nothing may follow it.

    Raises:
        ArchiveError (its subclasses): as `check_custom`.
    """
    source = _Source(file)
    contents = _contents(source)
    if contents.format == CUSTOM:
        raise ArchiveWrongKindError("The file toc.dat is a whole archive in custom format.")
    if source.ahead(1):
        raise source.damaged("the table of contents goes on behind its end", at=source.position)
    return contents


def require_files(data: Iterable[str], names: Container[str]) -> None:
    """See that all files with data are there, compressed or not.

    Args:
        data: their names, as the table of contents has them.
        names: of the files that are there.
    Raises:
        ArchiveTruncatedError: not all are.
    """
    missing = [name for name in data if name and not any(name + end in names for end in ("", ".gz", ".lz4", ".zst"))]
    if missing:
        raise ArchiveTruncatedError(
            f"The archive lacks {len(missing)} of its files, for example {missing[0][:100]!r}.",
            next_step="Pack the whole dump, or make it again.",
        )


def _contents(source: _Source) -> Contents:
    if source.take(len(MAGIC)) != MAGIC:
        raise ArchiveWrongKindError("The file is not a dump in custom format.")
    major, minor, _revision, source.integer_bytes, source.offset_bytes, form = source.take(6)
    version = (major, minor)
    if not OLDEST_VERSION <= version <= NEWEST_VERSION:
        raise ArchiveIncompatibleError(
            f"The archive's format has version {major}.{minor}; known are 1.{OLDEST_VERSION[1]} to "
            f"1.{NEWEST_VERSION[1]}.",
            next_step="Make the dump as SQL text (--format=plain).",
        )
    if source.integer_bytes not in (4, 8) or source.offset_bytes not in (4, 8):
        raise source.damaged("sizes of numbers that no machine has", at=source.position)
    if form not in (CUSTOM, TAR, DIRECTORY):
        raise source.damaged(f"there is no format {form}", at=FORMAT_AT)
    contents = Contents(version, form, _compression(source, version))
    second, minute, hour, day, month, year, _is_summer = (source.number() for _ in range(7))
    contents.dumped_at = f"{year + 1900}-{month + 1:02}-{day:02} {hour:02}:{minute:02}:{second:02}"
    contents.database, contents.server_version, contents.dumper_version = (source.text() or "" for _ in range(3))
    contents.entries = source.number()
    if not 0 <= contents.entries <= MOST_ENTRIES:
        raise LimitExceededError(f"The archive has {contents.entries} entries; {MOST_ENTRIES} are the most.")
    for _ in range(contents.entries):
        _entry(source, contents)
    return contents


def _look_behind(source: _Source, contents: Contents) -> None:
    """See that nothing stands behind the last block but what is known there; pg_restore reads none of it.

    That is the lines that we add to an export, whose word the seal checks, or the table of contents once more. The
    latter is there when PostgreSQL 16 and later wrote into `> FILE`: it goes back to note in the first one where the
    data is, but has opened its output for appending (_allocAH in pg_backup_archiver.c; seen with 18.6). Then there may
    be zero bytes, as `dd` and tapes leave them.
    """
    end = source.position
    text = source.ahead(_MOST_CLOSING_BYTES)
    if text and text[: len(DUMP_CLOSING_START)] == DUMP_CLOSING_START[: len(text)]:
        if len(text) == _MOST_CLOSING_BYTES or not is_dump_closing(text):
            raise ArchiveTruncatedError(
                f"The archive is cut off at byte {end + len(text)} or was added to: its data ends at byte {end}, and "
                "behind it there is not all that an export ends with.",
                next_step="Send the whole file, as it was exported, or a dump without what was added to it.",
            )
        return
    goes_on = ArchiveDamagedError(
        f"The archive ends at byte {end}, and the file goes on behind it.",
        next_step="Send the dump without what was added to it, or make it again.",
    )
    entries = b"\0" + contents.entries.to_bytes(source.integer_bytes, "little")
    if any(text) and entries.startswith(text[: len(entries)]):
        again = Contents(contents.version, contents.format, contents.compression, entries=source.number())
        try:
            for _ in range(again.entries):
                _entry(source, again)
        except ArchiveDamagedError as failure:
            raise goes_on from failure
        if again.data != contents.data:
            raise goes_on
    while text := source.ahead(_PIECE_BYTES):
        if any(text):
            raise goes_on
        source.skip(len(text))


def _compression(source: _Source, version: tuple[int, int]) -> str:
    if version < (1, 15):
        return "gzip" if source.number() else "none"
    algorithm = source.byte()
    if algorithm >= len(COMPRESSIONS):
        raise source.damaged(f"there is no compression {algorithm}", at=source.position - 1)
    return COMPRESSIONS[algorithm]


def _entry(source: _Source, contents: Contents) -> None:
    """One entry; the order of its fields is ReadToc's."""
    number, has_data = source.number(), source.number()
    source.text(), source.text()
    tag, kind = source.text() or "", source.text()
    source.number()
    for _ in range(5 if contents.version < (1, 14) else 6):  # its statements, schema, tablespace, access method
        source.text()
    if contents.version >= (1, 16):
        source.number()
    source.text(), source.text()
    while source.text() is not None:  # what it depends on
        pass
    file_name = ""
    if contents.format == CUSTOM:
        source.take(1 + source.offset_bytes)
    else:
        file_name = source.text() or ""
    if has_data:
        # In the tar format large objects lie in files of their own, and this name is of none.
        contents.data[number] = "" if contents.format == TAR and kind == "BLOBS" else file_name
    if kind == "TABLE":
        contents.tables += 1
    elif kind == "EXTENSION":
        contents.extensions.append(tag)


class _Source:
    """Bytes read forward, and the numbers and texts in them."""

    def __init__(self, file: Reader) -> None:
        self.position = 0
        self.integer_bytes = self.offset_bytes = 4
        self._file = file
        self._held = b""
        self._start = 0

    def take(self, size: int) -> bytes:
        """Exactly so many bytes."""
        end = self._start + size
        if end <= len(self._held):
            found = self._held[self._start : end]
        else:
            found = self._held[self._start :]
            while len(found) < size:
                self._fill(self.position + len(found))
                end = size - len(found)
                found += self._held[:end]
        self._start = min(end, len(self._held))
        self.position += size
        return found

    def byte(self) -> int:
        return self.take(1)[0]

    def ahead(self, most: int) -> bytes:
        """What comes next, without taking it; less than asked for where the file ends."""
        if self._start + most > len(self._held):
            self._held, self._start = self._held[self._start :], 0
            while len(self._held) < most and (more := self._file.read(_PIECE_BYTES)):
                self._held += more
        return self._held[self._start : self._start + most]

    def number(self) -> int:
        """WriteInt: a byte that is 1 for negative numbers, then the number, its lowest byte first."""
        found = self.take(1 + self.integer_bytes)
        if found[0] > 1:
            raise self.damaged("a number has no sign", at=self.position - len(found))
        number = int.from_bytes(found[1:], "little")
        return -number if found[0] else number

    def text(self) -> str | None:
        """WriteStr: its length, -1 for none at all, then its bytes; only the first of a long one."""
        size = self.number()
        if size < 0:
            return None
        if size > _MOST_TEXT_BYTES:
            raise self.damaged(f"a text of {size} bytes", at=self.position)
        kept = self.take(min(size, _KEPT_TEXT_BYTES))
        self.skip(size - len(kept))
        return kept.decode(errors="replace")

    def skip(self, size: int) -> None:
        while size > 0:
            size -= len(self.take(min(size, _PIECE_BYTES)))

    def skip_chunks(self, *, inflates: bool) -> None:
        """Data, in pieces that have their length before them; a length of 0 ends it."""
        start = self.position
        inflate = isal_zlib.decompressobj() if inflates else None
        is_empty = True
        while size := self.number():
            if size < 0:
                raise self.damaged("a piece of negative length", at=self.position)
            is_empty = False
            while size > 0:
                piece = self.take(min(size, _PIECE_BYTES))
                size -= len(piece)
                if inflate:
                    self._inflate(inflate, piece)
        if inflate and not is_empty and not inflate.eof:
            raise self.damaged("compressed data that does not end", at=start)

    def _inflate(self, inflate: isal_zlib.Decompress, piece: bytes) -> None:
        try:
            while piece:
                inflate.decompress(piece, _PIECE_BYTES)
                piece = inflate.unconsumed_tail
        except _INFLATE_ERROR as failure:
            raise self.damaged("compressed data that does not unpack", at=self.position) from failure

    def damaged(self, what: str, *, at: int) -> ArchiveError:
        return ArchiveDamagedError(
            f"The archive is damaged at byte {at}: {what}.", next_step="Send the file again, or make the dump again."
        )

    def _fill(self, position: int) -> None:
        self._held, self._start = self._file.read(_PIECE_BYTES), 0
        if not self._held:
            raise ArchiveTruncatedError(
                f"The archive is cut off at byte {position}.",
                next_step="Send the whole file, or make the dump again.",
            )
