"""How long a statement may be: the server's max_allowed_packet, which a row with large values may exceed in a dump.

The one fact to know: a row is written there in pieces or by functions, and a dump has it in one statement, its binary
values with two digits for each byte.
"""

from __future__ import annotations

from agent.engines.mariadb.dumps.sqltext import MAX_STATEMENT_BYTES
from common.errors import ArchiveIncompatibleError

_MIB = 1 << 20


def too_long(line: int, size_bytes: int, most_bytes: int) -> ArchiveIncompatibleError:
    """The error for a statement that the server would not take.

    Args:
        line: where it begins in the file.
    """
    return ArchiveIncompatibleError(
        f"Line {line}: a statement of {_mib(size_bytes)} is longer than this server takes: its max_allowed_packet is "
        f"{_mib(most_bytes)}.",
        next_step=f"{_setting(size_bytes)}, then import again.",
    )


def warning_of(table: str, size_bytes: int, most_bytes: int) -> str:
    """What to know of an export whose longest row is of this size; empty: there is nothing.

    Args:
        most_bytes: what the export's own server takes; 0: not known.
    """
    if size_bytes > MAX_STATEMENT_BYTES:
        return (
            f"A row of {table} is {_mib(size_bytes)} long in the export; an import takes up to "
            f"{_mib(MAX_STATEMENT_BYTES)}, so this export can only be loaded by hand."
        )
    if not most_bytes or size_bytes < most_bytes:
        return ""
    return (
        f"A row of {table} is {_mib(size_bytes)} long in the export, and this server takes {_mib(most_bytes)} at once. "
        f"Before an import: {_setting(size_bytes)}."
    )


def _setting(size_bytes: int) -> str:
    # A statement has some words before its row.
    return (
        f"Set max_allowed_packet of the server to {size_bytes // _MIB + 2}M or more, in its settings and by SET GLOBAL"
    )


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / _MIB:.1f} MiB"
