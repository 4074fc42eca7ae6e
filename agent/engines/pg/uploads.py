"""What kind of file an upload is, told from its first bytes."""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator, AsyncIterable

from agent.archives import tarblocks
from agent.archives.reading import kind_of
from common.errors import ArchiveWrongKindError
from common.pg_archives import CUSTOM, DIRECTORY, DUMP_FILE, FORMAT_AT, MAGIC, TAR

HEAD_BYTES = tarblocks.BLOCK + FORMAT_AT + 1
"""Enough to see the format of the table of contents that a tar begins with."""
_DUMP_AGAIN = "Make the dump with pg_dump, as SQL text (--format=plain) or in custom format (--format=custom)."
_ZIP_ENTRY = b"PK\x03\x04"
_FOREIGN_SQL = {
    b"-- MySQL dump": "MySQL",
    b"-- MariaDB dump": "MariaDB",
    b"/*M!999999": "MariaDB",
    b"PRAGMA foreign_keys=": "SQLite",
    b"PRAGMA foreign_keys =": "SQLite",
}


class UploadForm(enum.Enum):
    """The formats that are taken."""

    SQL = "sql"
    CUSTOM = "custom"
    TAR = "tar"
    DIRECTORY = "directory"
    """As a tar of it."""
    ZIP = "zip"
    """A directory, too."""


def form_of(head: bytes) -> UploadForm:
    """The format of a file by its first HEAD_BYTES, or all of it when it is shorter.

    Raises:
        ArchiveWrongKindError: none that is taken; the text says what it seems to be.
    """
    if not head:
        raise ArchiveWrongKindError("The file is empty.", next_step=_DUMP_AGAIN)
    if head.startswith(MAGIC):
        return _form_of_contents(head)
    if len(head) >= tarblocks.BLOCK and tarblocks.is_header(head[: tarblocks.BLOCK]):
        is_tar_format = head[tarblocks.BLOCK :].startswith(MAGIC) and head[-1] == TAR
        return UploadForm.TAR if is_tar_format else UploadForm.DIRECTORY
    if not any(head):
        raise ArchiveWrongKindError(
            "The file begins with nothing but zeros: its content was lost.", next_step=_DUMP_AGAIN
        )
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or head[1:8:2] == bytes(4) or head[:8:2] == bytes(4):
        raise ArchiveWrongKindError(
            "The file is UTF-16 text, as PowerShell's `>` writes it, not what pg_dump wrote.",
            next_step="Let pg_dump write the file itself: pg_dump -f FILE.",
        )
    for beginning, engine in _FOREIGN_SQL.items():
        if head.startswith(beginning):
            raise ArchiveWrongKindError(f"The file is a dump of {engine}, not of PostgreSQL.")
    kind = kind_of(head)
    if kind == "a PostgreSQL dump in SQL" or (kind.startswith("an unknown kind") and b"\0" not in head):
        return UploadForm.SQL
    raise ArchiveWrongKindError(f"The file is {kind}, not a PostgreSQL dump.", next_step=_DUMP_AGAIN)


def is_zipped_directory(head: bytes) -> bool:
    """Whether a file begins as a zip does that holds a dump in directory format, and not a single file."""
    if not head.startswith(_ZIP_ENTRY):
        return False
    # The first entry's own header (APPNOTE.TXT 4.3.7); its name is behind 30 bytes.
    name = head[30 : 30 + int.from_bytes(head[26:28], "little")].decode(errors="replace").replace("\\", "/")
    return name.endswith("/") or DUMP_FILE.fullmatch(name.rpartition("/")[2]) is not None


def _form_of_contents(head: bytes) -> UploadForm:
    form = head[FORMAT_AT] if len(head) > FORMAT_AT else CUSTOM
    if form in (TAR, DIRECTORY):
        raise ArchiveWrongKindError(
            "The file is only toc.dat, the table of contents of a dump in directory format.",
            next_step="Pack the whole directory with tar or zip and upload that.",
        )
    # Whatever else stands there, who reads the archive says it with its place.
    return UploadForm.CUSTOM


async def peek(chunks: AsyncIterable[bytes]) -> tuple[bytes, AsyncGenerator[bytes, None]]:
    """The first HEAD_BYTES of a stream, or all there are, and the stream with them."""
    iterator = aiter(chunks)
    first: list[bytes] = []
    size = 0
    async for chunk in iterator:
        first.append(chunk)
        size += len(chunk)
        if size >= HEAD_BYTES:
            break
    head = b"".join(first)

    async def whole() -> AsyncGenerator[bytes, None]:
        if head:
            yield head
        async for chunk in iterator:
            yield chunk

    return head[:HEAD_BYTES], whole()
