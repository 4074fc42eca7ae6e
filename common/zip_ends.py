"""Where a zip ends: whoever reads one looks for that from behind, and a comment may hold what looks like another end.

Source: APPNOTE.TXT 4.3.16.
"""

from __future__ import annotations

import os
from typing import BinaryIO

from common.errors import ArchiveRefusedError

END_MAGIC, END_BYTES = b"PK\5\6", 22
"""Of the record at the end, which only a comment follows; its last two bytes are the comment's length."""
_MOST_COMMENT_BYTES = 0xFFFF


def require_one_end(file: BinaryIO) -> None:
    """Leaves the file at its beginning.

    Raises:
        ArchiveRefusedError: its comment looks like another end, so what it holds depends on who reads it.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - END_BYTES - _MOST_COMMENT_BYTES, 0))
    tail = file.read(END_BYTES + _MOST_COMMENT_BYTES)
    file.seek(0)
    start = tail.find(END_MAGIC)
    while start >= 0:
        following = tail.find(END_MAGIC, start + 1)
        comment_begins = start + END_BYTES
        comment_bytes = int.from_bytes(tail[comment_begins - 2 : comment_begins], "little")
        if comment_begins + comment_bytes == len(tail) and following >= 0:
            raise ArchiveRefusedError(
                "The zip's comment looks like the end of another zip, so what it holds depends on who reads it.",
                next_step="Pack the files again, without a comment.",
            )
        start = following
