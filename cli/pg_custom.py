"""pg_dump's custom format, read forward once in flat memory to see that nothing is missing.

After PostgreSQL's src/bin/pg_dump/pg_backup_archiver.c and pg_backup_custom.c, archive versions 1.12 to 1.16. Neither a
cut nor a flipped byte has to show in `pg_restore -l`, which reads the table of contents alone.
"""

from __future__ import annotations

from isal import isal_zlib

from common.codecs import Reader
from common.errors import ArchiveDamagedError, ArchiveTruncatedError, ArchiveWrongKindError

_PIECE_BYTES = 1 << 20
_MAX_TEXT_BYTES = 1 << 28
_MAX_ENTRIES = 10_000_000
_DATA, _LARGE_OBJECTS = 1, 3
_COMPRESSIONS = {0: "none", 1: "gzip", 2: "lz4", 3: "zstd"}
_INFLATE_ERROR: type[Exception] = isal_zlib.error  # type: ignore[assignment]  # its stub calls the class an instance
_FORMATS = {3: "tar", 5: "directory"}


class CustomArchive:
    """Calls in order: `read_opening`, `read_contents`, `read_data`.

    All raise ArchiveTruncatedError where the file ends too early, ArchiveDamagedError where it makes no sense.

    Attributes:
        facts: what the archive says of itself, for a person.
        tables: tables that its table of contents names.
    """

    def __init__(self, content: Reader) -> None:
        self.facts: dict[str, str] = {}
        self.tables = 0
        self._content = content
        self._minor = 0
        self._int_bytes = self._offset_bytes = 4
        self._is_gzip = False
        self._entries = 0
        self._awaited: set[int] = set()

    def read_opening(self) -> None:
        """Versions, date, database; ArchiveWrongKindError for a table of contents that stands for other files."""
        opening = self._exactly(11)
        major, self._minor, _, self._int_bytes, self._offset_bytes, form = opening[5:]
        if form != 1:
            raise ArchiveWrongKindError(
                f"This is the table of contents of a dump in {_FORMATS.get(form, 'another')} format, not the dump."
            )
        if (major, self._minor) < (1, 12) or (major, self._minor) > (1, 16):
            raise ArchiveWrongKindError(f"Archives of version {major}.{self._minor} are not known here.")
        if self._int_bytes not in (4, 8) or self._offset_bytes not in (4, 8):
            raise self._nonsense()
        if self._minor >= 15:
            compression = _COMPRESSIONS.get(self._byte(), "unknown")
        else:
            compression = "gzip" if self._integer() else "none"
        self._is_gzip = compression == "gzip"
        second, minute, hour, day, month, year, _ = (self._integer() for _ in range(7))
        database, server, dumper = self._text(), self._text(), self._text()
        self.facts = {
            "Database": database or "",
            "Dumped from version": server or "",
            "Dumped by version": dumper or "",
            "Dumped at": f"{year + 1900}-{month + 1:02}-{day:02} {hour:02}:{minute:02}:{second:02}, its server's time",
            "Compression inside": compression,
        }
        self._entries = self._integer()
        if not 0 <= self._entries <= _MAX_ENTRIES:
            raise self._nonsense()

    def read_contents(self) -> None:
        """The table of contents: remembers which entries promise data."""
        for _ in range(self._entries):
            entry, has_data = self._integer(), self._integer()
            self._text(), self._text(), self._text()
            if self._text() == "TABLE":
                self.tables += 1
            self._integer()
            for _ in range(5):
                self._text()
            if self._minor >= 14:
                self._text()
            if self._minor >= 16:
                self._integer()
            self._text(), self._text()
            while self._text() is not None:
                pass
            self._exactly(1 + self._offset_bytes)
            if has_data:
                self._awaited.add(entry)

    def read_data(self) -> None:
        """All blocks to the end of the file; each that was promised has to be there, and its checksum to agree."""
        while kind := self._content.read(1):
            entry = self._integer()
            if kind[0] == _DATA:
                self._stream()
            elif kind[0] == _LARGE_OBJECTS:
                while self._integer():
                    self._stream()
            else:
                raise self._nonsense()
            self._awaited.discard(entry)
        if self._awaited:
            raise ArchiveTruncatedError(
                f"The dump is cut off: {len(self._awaited)} of its tables' data are missing.",
                next_step="Take another copy of the file, or make the dump again.",
            )

    def _stream(self) -> None:
        """One entry's data: pieces with their lengths, a zero at the end."""
        inflate = isal_zlib.decompressobj() if self._is_gzip else None
        size = 0
        while length := self._integer():
            if length < 0:
                raise self._nonsense()
            size += length
            while length:
                piece = self._exactly(min(length, _PIECE_BYTES))
                length -= len(piece)
                while inflate and piece:
                    self._inflate(inflate, piece)
                    piece = inflate.unconsumed_tail
        if inflate and size and not inflate.eof:
            raise self._nonsense()

    def _inflate(self, inflate: isal_zlib.Decompress, piece: bytes) -> None:
        try:
            inflate.decompress(piece, _PIECE_BYTES)
        except _INFLATE_ERROR as failure:
            raise self._nonsense() from failure

    def _exactly(self, size: int) -> bytes:
        pieces = []
        while size:
            piece = self._content.read(min(size, _PIECE_BYTES))
            if not piece:
                raise ArchiveTruncatedError(
                    "The dump is cut off: it stops before its end.",
                    next_step="Take another copy of the file, or make the dump again.",
                )
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def _byte(self) -> int:
        return self._exactly(1)[0]

    def _integer(self) -> int:
        number = self._exactly(1 + self._int_bytes)
        value = int.from_bytes(number[1:], "little")
        return -value if number[0] else value

    def _text(self) -> str | None:
        size = self._integer()
        if size < 0:
            return None
        if size > _MAX_TEXT_BYTES:
            raise self._nonsense()
        return self._exactly(size).decode("utf-8", "replace")

    def _nonsense(self) -> ArchiveDamagedError:
        return ArchiveDamagedError(
            "The dump is damaged: what stands in it makes no sense.",
            next_step="Take another copy of the file, or make the dump again.",
        )
