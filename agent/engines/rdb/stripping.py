"""Scripts taken out of a snapshot file.

A Redis 6.2 writes the scripts that it has cached into its snapshots, as fields named `lua`, and defines each when it
loads one: it runs the text, which need not be one function's body, without a limit of time (luaCreateFunction in
scripting.c). They are no data, and newer servers pass them by.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from agent.engines.filesystem import is_full
from agent.engines.rdb.content import RdbContent
from common.errors import NoSpaceError
from common.rdb import CRC_BYTES, EOF_OPCODE, crc64
from common.writing import write_all_at

_PIECE_BYTES = 4 << 20


def without_scripts(path: Path, content: RdbContent) -> RdbContent:
    """Take the fields with scripts out of a file, which is a whole RDB again then. Blocks; reads the file once more.

    Args:
        content: of the file as it is.
    Returns:
        Of the file as it is then.
    Raises:
        NoSpaceError: the disk does not take it; the file is spoilt.
    """
    if not content.scripts:
        return content
    kept, start = [], 0
    for span_start, span_end in content.script_spans:
        kept.append((start, span_start))
        start = span_end
    kept.append((start, content.body_bytes))
    descriptor = os.open(path, os.O_RDWR)
    try:
        body_bytes, body_crc = _moved_together(descriptor, kept)
        end = bytes([EOF_OPCODE])
        if content.header.has_crc:
            end += crc64(end, body_crc).to_bytes(CRC_BYTES, "little")
        write_all_at(descriptor, end, body_bytes)
        os.ftruncate(descriptor, body_bytes + len(end))
    except OSError as failure:
        if not is_full(failure):
            raise
        raise NoSpaceError(
            "There is no room on the agent's disk to take scripts out of the file. Nothing was changed.",
            next_step="Make room there, then try again.",
        ) from failure
    finally:
        os.close(descriptor)
    return msgspec.structs.replace(
        content, script_spans=[], body_bytes=body_bytes, body_crc=body_crc, size_bytes=body_bytes + len(end)
    )


def _moved_together(descriptor: int, kept: list[tuple[int, int]]) -> tuple[int, int]:
    """The length and the checksum of what is kept, which begins at the file's beginning then."""
    position = crc = 0
    for start, end in kept:
        for at in range(start, end, _PIECE_BYTES):
            piece = os.pread(descriptor, min(_PIECE_BYTES, end - at), at)
            crc = crc64(piece, crc)
            if position != at:
                write_all_at(descriptor, piece, position)
            position += len(piece)
    return position, crc
