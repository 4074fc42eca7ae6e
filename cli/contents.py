"""What a file holds and whether its end is there, told from its uncompressed bytes alone, in flat memory.

Each look reads its content to the end, and notes what it learns as it goes: a damaged file still says what it was.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from common import kinds, pg_archives, rdb
from common.codecs import PeekedFile
from common.errors import ArchiveDamagedError, ArchiveIncompatibleError, ArchiveTruncatedError, ArchiveWrongKindError
from common.kinds import kind_of
from common.readers import Reader
from common.seals import RESERVED_DIRECTORY
from common.wording import counted

Completeness = Literal["proven", "plausible", "unknown", "damaged"]
"""proven: a digest of all of the content, made when it was written, agrees.
plausible: the format's own end is there and its structure holds; a changed byte in between need not show.
unknown: nothing in the format says where its end is.
damaged: it is cut off, or something in it does not hold."""

HEAD_BYTES = 4096
"""What a look may need to see to know its format."""
PIECE_BYTES = 1 << 20
_RDB_TAIL_BYTES = 1 << 16
"""In which the end of a snapshot is looked for when it is not where the file ends."""
_GNU_DIRECTORY = b"D"
"""A folder in an incremental tar; the names in it are its content."""
_WHOLE_STEP = "Take another copy of the file, or make the dump again."


@dataclass
class Findings:
    """Filled in by a look. `kind` is empty while nobody knows what the file is."""

    kind: str = ""
    title: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    completeness: Completeness = "unknown"
    evidence: list[str] = field(default_factory=list)

    def conclude(self, completeness: Completeness, evidence: str) -> None:
        self.completeness = completeness
        self.evidence.append(evidence)


def look(content: PeekedFile, found: Findings) -> None:
    """Find out what the content is and read all of it.

    Raises:
        ArchiveTruncatedError, ArchiveDamagedError: with `found` as far as it got.
    """
    kind = kind_of(content.head)
    if look_at := _LOOKS.get(kind) or _look_for(content.head):
        look_at(content, found)
        return
    found.evidence.append(f"It is {kind}, which Mathison Data does not take.")
    _drain(content)


def is_known(head: bytes) -> bool:
    """Whether something is of a kind that `look` tells, by its first HEAD_BYTES; nothing is of none."""
    return bool(head) and (kind_of(head) in _LOOKS or _look_for(head) is not None)


def _look_at_sql(content: PeekedFile, found: Findings) -> None:
    found.kind = "sql"
    text = content.head.decode("utf-8", "replace")
    for dump in _SQL_DUMPS:
        if dump.opening in text:
            found.title, expected = dump.title, dump.closing
            break
    else:
        found.title, expected = "SQL text", b""
    for name, pattern in _SQL_FACTS.items():
        if said := pattern.search(text):
            found.facts[name] = said[1].strip()
    scan = _SqlScan()
    tail = b""
    while piece := content.read(PIECE_BYTES):
        scan.add(piece)
        tail = (tail + piece)[-_SQL_TAIL_BYTES:]
    if scan.tables:
        found.counts["tables"] = scan.tables
    if scan.is_in_copy:
        raise ArchiveTruncatedError("The file is cut off in the middle of a table's rows.", next_step=_WHOLE_STEP)
    if not expected:
        found.conclude("unknown", "SQL text that no dump program signed has no mark at its end.")
    elif expected in tail:
        found.conclude("plausible", f'Its last line "{expected.decode()}" is there.')
    else:
        raise ArchiveTruncatedError(
            f'The file is cut off: its last line "{expected.decode()}" is missing.', next_step=_WHOLE_STEP
        )


@dataclass(frozen=True)
class _SqlDump:
    opening: str
    closing: bytes
    title: str


_SQL_DUMPS = (
    _SqlDump(
        "-- PostgreSQL database cluster dump",
        b"-- PostgreSQL database cluster dump complete",
        "PostgreSQL dump of a whole server (pg_dumpall), as SQL text",
    ),
    _SqlDump(
        "-- PostgreSQL database dump", b"-- PostgreSQL database dump complete", "PostgreSQL dump as SQL text (pg_dump)"
    ),
    _SqlDump("-- MariaDB dump", b"-- Dump completed", "MariaDB dump as SQL text"),
    _SqlDump("-- MySQL dump", b"-- Dump completed", "MySQL dump as SQL text"),
)
_SQL_TAIL_BYTES = (1 << 18) + 2048
"""Where a dump's last line is: before the lines of our seal, which may hold a fingerprint."""
_SQL_FACTS = {
    "Dumped from version": re.compile(r"^-- Dumped from database version (.+)$", re.MULTILINE),
    "Dumped by version": re.compile(r"^-- Dumped by pg_dump version (.+)$", re.MULTILINE),
}
_SQL_BEGINNING = re.compile(
    rb"(\xef\xbb\xbf)?\s*(--|/\*|\\|(set|create|begin|start|insert|copy|drop|alter|select|pragma|use)\s)", re.IGNORECASE
)


class _SqlScan:
    """Counts the tables of an SQL text and knows whether it is inside a COPY block; searches, so it is fast."""

    def __init__(self) -> None:
        self.tables = 0
        self.is_in_copy = False
        self._held = b"\n"

    def add(self, piece: bytes) -> None:
        text = self._held + piece
        while True:
            if self.is_in_copy:
                end = _COPY_END.search(text)
                if end is None:
                    self._held = text[-4:]
                    return
                self.is_in_copy, text = False, text[end.end() :]
            copy = text.find(b"\nCOPY ")
            line_end = text.find(b"\n", copy + 1) if copy >= 0 else -1
            if line_end >= 0:
                self._count(text[: copy + 1])
                self.is_in_copy = text[copy:line_end].rstrip(b"\r").endswith(b"FROM stdin;")
                text = text[line_end:]
                continue
            # The last line may go on in the next piece; one this long is nothing that is looked for.
            last_line = text.rfind(b"\n")
            self._count(text[:last_line] if last_line >= 0 else b"")
            self._held = text[last_line:] if last_line >= 0 and len(text) - last_line < PIECE_BYTES else b""
            return

    def _count(self, text: bytes) -> None:
        self.tables += len(_CREATE_TABLE.findall(text)) if b"\nCREATE " in text else 0


_COPY_END = re.compile(rb"\n\\\.\r?(?=\n)")
"""Also as an editor of Windows saves it, which the server takes."""
_CREATE_TABLE = re.compile(rb"\nCREATE (?:UNLOGGED |FOREIGN )?TABLE ")


def _look_at_custom(content: PeekedFile, found: Findings) -> None:
    found.kind, found.title = "custom", "PostgreSQL dump in custom format (pg_dump -Fc)"
    try:
        pg_archives.check_custom(content, unpacks=True, on_contents=lambda contents: _tell_of_custom(contents, found))
    except (ArchiveWrongKindError, ArchiveIncompatibleError) as failure:
        found.conclude("unknown", failure.text)
        _drain(content)
        return
    found.conclude("plausible", "Every block of data that its table of contents announces is there.")


def _tell_of_custom(contents: pg_archives.Contents, found: Findings) -> None:
    found.facts |= {
        "Database": contents.database,
        "Dumped from version": contents.server_version,
        "Dumped by version": contents.dumper_version,
        "Dumped at": f"{contents.dumped_at}, its server's time",
        "Compression inside": contents.compression,
    }
    found.counts["tables"] = contents.tables


def _look_at_tar(content: PeekedFile, found: Findings) -> None:
    found.kind, found.title = "tar", "Tar archive"
    entries = {"files": 0, "folders": 0, "other entries": 0}
    content_bytes = 0
    empty_blocks = 0
    long_size: int | None = None
    is_first = True
    while empty_blocks < 2:
        block = _exactly(content, tarfile.BLOCKSIZE)
        if not any(block):
            empty_blocks += 1
            continue
        if empty_blocks:
            raise ArchiveDamagedError("The tar goes on after an empty block.", next_step=_WHOLE_STEP)
        member = _tar_member(block)
        if is_first and member.name == "toc.dat":
            found.title = "PostgreSQL dump in tar format (pg_dump -Ft)"
        is_first = False
        padded = -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        match member.type:
            case tarfile.XHDTYPE | tarfile.SOLARIS_XHDTYPE:
                long_size = _pax_size(_extended(content, padded)[: member.size])
                continue
            case tarfile.XGLTYPE | tarfile.GNUTYPE_LONGNAME | tarfile.GNUTYPE_LONGLINK:
                _extended(content, padded)
                continue
            case tarfile.GNUTYPE_SPARSE:
                is_continued = block[482] != 0
                while is_continued:
                    is_continued = _exactly(content, tarfile.BLOCKSIZE)[504] != 0
        size = member.size if long_size is None else long_size
        long_size = None
        if member.isreg():
            content_bytes += size
            if not member.name.startswith(RESERVED_DIRECTORY):
                entries["files"] += 1
            _skip(content, -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE)
        else:
            is_listed = member.type == _GNU_DIRECTORY
            entries["folders" if member.isdir() or is_listed else "other entries"] += 1
            _skip(content, padded if is_listed else 0)
        found.counts.update({name: count for name, count in entries.items() if count})
    rest = 0
    while piece := content.read(PIECE_BYTES):
        rest += len(piece)
        if any(piece):
            raise ArchiveDamagedError("The tar goes on behind the empty blocks that end it.", next_step=_WHOLE_STEP)
    if is_first and 2 * tarfile.BLOCKSIZE + rest > tarfile.RECORDSIZE:
        raise ArchiveDamagedError("The file is nothing but zeros: its content was lost.", next_step=_WHOLE_STEP)
    found.facts["Content"] = f"{content_bytes:,} bytes"
    found.conclude("plausible", "The empty blocks that end a tar are there, and every member's header checks out.")


def _tar_member(block: bytes) -> tarfile.TarInfo:
    try:
        member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as failure:
        raise ArchiveDamagedError(
            "The tar is damaged: where a member should begin is something else.", next_step=_WHOLE_STEP
        ) from failure
    if member.size < 0:
        raise ArchiveDamagedError("The tar is damaged: a member's size is below zero.", next_step=_WHOLE_STEP)
    return member


def _extended(content: PeekedFile, size: int) -> bytes:
    """Content of a header that describes the next member; honest ones are small."""
    if size > PIECE_BYTES:
        raise ArchiveDamagedError("The tar is damaged: a member's description is larger than 1 MiB.")
    return _exactly(content, size)


def _pax_size(records: bytes) -> int | None:
    sizes = re.findall(rb"(?:^|\n)\d+ size=(\d{1,19})(?=\n)", records)
    return int(sizes[-1]) if sizes else None


def _look_at_sqlite(content: PeekedFile, found: Findings) -> None:
    found.kind, found.title = "sqlite", "SQLite database"
    head = content.head
    page_bytes = int.from_bytes(head[16:18]) or 1
    page_bytes = 65536 if page_bytes == 1 else page_bytes
    # The size in the header counts only when the last writer knew of it: sqlite.org/fileformat2.html, 1.3.7.
    pages = int.from_bytes(head[28:32]) if head[24:28] == head[92:96] else 0
    size = _drain(content)
    if len(head) < 100 or size < pages * page_bytes:
        raise ArchiveTruncatedError(
            f"The database is cut off: {size:,} bytes are there of {pages * page_bytes:,}.", next_step=_WHOLE_STEP
        )
    found.conclude("unknown", "Its size is what its header says; its inside was not checked.")


def _look_at_rdb(content: PeekedFile, found: Findings) -> None:
    server = "Valkey" if content.head.startswith(b"VALKEY") else "Redis"
    found.kind, found.title = "rdb", f"{server} snapshot (RDB version {int(content.head[6:9])})"
    header = rdb.read_header(content.head)
    if header is not None and header.writer:
        found.facts["Written by"] = header.writer
    crc, tail = 0, b""
    while piece := content.read(PIECE_BYTES):
        both = tail + piece
        done = max(0, len(both) - _RDB_TAIL_BYTES)
        crc = rdb.crc64(memoryview(both)[:done], crc)
        tail = both[done:]
    end = tail[-rdb.END_BYTES :]
    has_mark = len(end) == rdb.END_BYTES and end[0] == rdb.EOF_OPCODE
    if has_mark and not any(end[1:]):
        found.conclude("plausible", "Its end mark is there; its writer left the checksum out (rdbchecksum no).")
        return
    behind = _behind_rdb(tail, crc)
    if behind == 0:
        found.conclude("proven", "The CRC-64 at its end, which its server wrote, agrees with all of its content.")
    elif behind is not None:
        raise ArchiveDamagedError(
            f"The snapshot is whole, and something stands behind its end: {counted(behind, 'bytes')}.",
            next_step="Cut that off, or take another copy of the file.",
        )
    elif not has_mark:
        raise ArchiveTruncatedError(
            "The snapshot is cut off, or much was added to it: it does not end with its end mark.",
            next_step=_WHOLE_STEP,
        )
    else:
        raise ArchiveDamagedError(
            "The snapshot is damaged: its content does not have the checksum that stands at its end.",
            next_step=_WHOLE_STEP,
        )


def _behind_rdb(tail: bytes, crc: int) -> int | None:
    """How many bytes stand behind the last end mark with the checksum of all before; None: there is none.

    The last, since a sound file may have two: where the data ends with the byte of the mark, as lists do, and the
    lowest byte of its checksum is the same, the checksum with the mark is the one without it, shifted by a byte.

    Args:
        tail: how the file ends.
        crc: of everything before that.
    """
    done, behind = 0, None
    while (mark := tail.find(rdb.EOF_OPCODE, done)) >= 0:
        crc = rdb.crc64(memoryview(tail)[done : mark + 1], crc)
        done = mark + 1
        # Zero says that there is none.
        if crc and tail[done : done + rdb.CRC_BYTES] == crc.to_bytes(rdb.CRC_BYTES, "little"):
            behind = len(tail) - done - rdb.CRC_BYTES
    return behind


def _look_at_nothing(content: PeekedFile, found: Findings) -> None:
    found.title = "Empty file"
    raise ArchiveTruncatedError("The file is empty.", next_step=_WHOLE_STEP)


def _look_at_utf16(content: PeekedFile, found: Findings) -> None:
    found.title = "Text in UTF-16"
    found.evidence.append("Windows PowerShell writes this when a dump is redirected by >; use pg_dump -f instead.")
    _drain(content)


def _is_tar(head: bytes) -> bool:
    try:
        return len(head) >= tarfile.BLOCKSIZE and bool(
            tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape").name
        )
    except tarfile.HeaderError:
        # An empty tar is nothing but zeros, as many things are; its length is the only hint there is.
        return len(head) >= 2 * tarfile.BLOCKSIZE and not any(head)


_Look = Callable[[PeekedFile, Findings], None]


def _look_for(head: bytes) -> _Look | None:
    """For what is not told by its first bytes alone."""
    if _is_tar(head):
        return _look_at_tar
    return _look_at_sql if b"\0" not in head and _SQL_BEGINNING.match(head) else None


_LOOKS: dict[str, _Look] = {
    kinds.EMPTY: _look_at_nothing,
    kinds.TAR: _look_at_tar,
    kinds.POSTGRESQL_CUSTOM: _look_at_custom,
    kinds.SQLITE: _look_at_sqlite,
    kinds.REDIS: _look_at_rdb,
    kinds.VALKEY: _look_at_rdb,
    kinds.UTF16: _look_at_utf16,
}


def _exactly(content: Reader, size: int) -> bytes:
    pieces = []
    while size:
        piece = content.read(size)
        if not piece:
            raise ArchiveTruncatedError("The tar is cut off: it stops before its end.", next_step=_WHOLE_STEP)
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _skip(content: Reader, size: int) -> None:
    while size:
        size -= len(_exactly(content, min(size, PIECE_BYTES)))


def _drain(content: Reader) -> int:
    size = 0
    while piece := content.read(PIECE_BYTES):
        size += len(piece)
    return size
