"""What kind of file an upload is, told from its first bytes."""

from __future__ import annotations

import enum

from agent.archives import tarblocks
from common.codecs import codec_of
from common.errors import ArchiveWrongKindError
from common.kinds import POSTGRESQL_CUSTOM, POSTGRESQL_SQL, TAR, TEXT, UNKNOWN, kind_of
from common.pg_archives import CUSTOM, DIRECTORY, DUMP_FILE, FORMAT_AT, MAGIC
from common.pg_archives import TAR as TAR_FORMAT

HEAD_BYTES = tarblocks.BLOCK + FORMAT_AT + 1
"""Enough to see the format of the table of contents that a tar begins with."""
_DUMP_AGAIN = (
    "Make the dump with pg_dump --file=FILE, as SQL text (--format=plain) or in custom format (--format=custom)."
)


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
    kind = kind_of(head)
    if kind == POSTGRESQL_CUSTOM:
        return _form_of_contents(head)
    if kind == TAR or (len(head) >= tarblocks.BLOCK and tarblocks.is_header(head[: tarblocks.BLOCK])):
        is_tar_format = head[tarblocks.BLOCK :].startswith(MAGIC) and head[-1] == TAR_FORMAT
        return UploadForm.TAR if is_tar_format else UploadForm.DIRECTORY
    if kind == POSTGRESQL_SQL or (kind in (TEXT, UNKNOWN) and b"\0" not in head):
        return UploadForm.SQL
    raise ArchiveWrongKindError(f"The file is {kind}, not a PostgreSQL dump.", next_step=_DUMP_AGAIN)


def is_zipped_directory(head: bytes) -> bool:
    """Whether a file begins as a zip does that holds a dump in directory format, and not a single file."""
    if codec_of(head) != "zip":
        return False
    # The first entry's own header (APPNOTE.TXT 4.3.7); its name is behind 30 bytes.
    name = head[30 : 30 + int.from_bytes(head[26:28], "little")].decode(errors="replace").replace("\\", "/")
    return name.endswith("/") or DUMP_FILE.fullmatch(name.rpartition("/")[2]) is not None


def _form_of_contents(head: bytes) -> UploadForm:
    form = head[FORMAT_AT] if len(head) > FORMAT_AT else CUSTOM
    if form in (TAR_FORMAT, DIRECTORY):
        raise ArchiveWrongKindError(
            "The file is only toc.dat, the table of contents of a dump in directory format.",
            next_step="Pack the whole directory with tar or zip and upload that.",
        )
    # Whatever else stands there, who reads the archive says it with its place.
    return UploadForm.CUSTOM
