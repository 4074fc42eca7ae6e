"""What an exchange notes beside the data: which entries there are, and how far it came."""

from __future__ import annotations

import json

import msgspec

from agent.engines.filesystem import read_small_file
from agent.engines.noting import write_note
from agent.engines.swapping import Side
from agent.versions import require_known
from common.errors import InternalError

_JOURNAL, _VERSION = "exchange.json", 2
_READ_VERSIONS = (1, _VERSION)
"""The first put what it laid aside where buckets are staged."""
_MORE_BYTES = 16 << 10
"""What the next form of the journal may have more than the present one: entries of two hundred buckets."""
_MOST_BYTES = 256 << 20
"""Entries of a million buckets."""


class Entry(msgspec.Struct):
    """A path below the drive, the inode that lies there before, and the one after; None: nothing."""

    path: str
    before: int | None
    after: int | None


class Journal(msgspec.Struct):
    """How far an exchange came.

    Attributes:
        target: whose data comes, or is there.
        kept_below: entries of the other's data, those at the top and all below, once it is done or staged; 0: not
            counted.
    """

    target: str
    is_done: bool
    entries: list[Entry]
    kept_below: int = 0
    version: int = 1


def nothing_yet() -> Journal:
    """Of an import that has exchanged nothing."""
    return Journal(target=Side.PREVIOUS.value, is_done=True, entries=[], version=_VERSION)


def begun(target: Side, entries: list[Entry]) -> Journal:
    """Of an exchange that is about to begin."""
    return Journal(target=target.value, is_done=False, entries=entries, version=_VERSION)


def reversed_of(journal: Journal) -> Journal:
    """Of the way back."""
    entries = [Entry(entry.path, entry.after, entry.before) for entry in journal.entries]
    return begun(Side(journal.target).other, entries)


def read_journal(area: int) -> Journal | None:
    """What is noted in an import's area; None: nothing.

    Args:
        area: a descriptor.
    Raises:
        InternalError: it is damaged.
        UnknownVersionError: it is of a version that is not read.
    """
    try:
        content = read_small_file(_JOURNAL, parent=area, most_bytes=_MOST_BYTES)
        require_known(content, _READ_VERSIONS, "An exchange on the drive")
        return msgspec.json.decode(content, type=Journal)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as failure:
        reason = failure.strerror if isinstance(failure, OSError) else "it is damaged"
        raise InternalError(f"The journal {_JOURNAL!r} of an exchange cannot be read: {reason}.") from failure


def write_journal(journal: Journal, area: int, *, coming: Journal | None = None) -> None:
    """Note it; OSError where that fails.

    Args:
        area: a descriptor.
        coming: have room for this one, too.
    """
    content = _encoded(journal)
    room_bytes = max(len(content), len(_encoded(coming)) if coming else 0) + _MORE_BYTES
    write_note(_JOURNAL, content, room_bytes=room_bytes, area=area)


def _encoded(journal: Journal) -> bytes:
    return json.dumps(msgspec.to_builtins(journal)).encode()
