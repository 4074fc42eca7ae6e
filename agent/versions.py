"""What an agent notes for the next one has a version, and the next one may be older or newer.

One rule for all of it, be it a line of the journal or a file of an engine's own: what is of a version that is not known
is never taken for nothing. It stays as it is, with all that it may name, and a person is told who can read it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from common.errors import NOTHING_CHANGED, AppUnavailableError


class UnknownVersionError(AppUnavailableError):
    """Another agent noted it, in a form that this one does not read; it was left as it is."""

    usual_next_step = "Start the agent of the version that noted it again: it brings the import to its end."


class _Head(msgspec.Struct):
    version: int = 1
    made_by: str = ""


def require_known(content: bytes, known: Sequence[int], what: str) -> None:
    """See that a note can be read.

    Args:
        content: JSON; its `version` is 1 where it says none, and `made_by`, where it is there, the agent that noted it.
        known: the versions that are read.
        what: the text begins with it, for example "The exchange of import 1f".
    Raises:
        UnknownVersionError: it cannot.
        ValueError: it is damaged.
    """
    head = msgspec.json.decode(content, type=_Head)
    if head.version not in known:
        versions = " and ".join(str(version) for version in known)
        raise not_read(what, head.made_by, f"it is of version {head.version}, not {versions}")


def not_read(what: str, made_by: str, reason: str) -> UnknownVersionError:
    """The error of a note that cannot be read.

    Args:
        made_by: the agent that noted it; empty: not known.
    """
    return UnknownVersionError(
        f"{what} was noted by {made_by or 'another agent'} in a form that this agent does not read: {reason}. "
        f"{NOTHING_CHANGED} All that it keeps stays."
    )
