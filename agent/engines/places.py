"""Where an app's data was when a file was staged: settings may name another database since.

What an import made is found by its key alone, on whichever server and beside whichever database, so before anything is
done with it, the place has to be the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from common.errors import AppUnavailableError

_SETTINGS = "the agent's settings"
_SETTINGS_BACK = (
    "Put the agent's settings back as they were, then repeat the step; what was only staged can also be imported again."
)


def require_same_place(
    facts: Mapping[str, object], now: str, *, told_by: str = _SETTINGS, next_step: str = _SETTINGS_BACK
) -> None:
    """
    Args:
        facts: an import's; they hold `place`, but not those of an older agent.
        now: the place that `told_by` names, for a person.
    Raises:
        AppUnavailableError: it was another; with the `next_step`.
    """
    then = facts.get("place") or now
    if then != now:
        raise moved(now=now, then=str(then), told_by=told_by, next_step=next_step)


def require_same_directory(then: Path, now: Path) -> None:
    """As `require_same_place`, for directories."""
    if not _is_same(then, now):
        raise moved(now=str(now), then=str(then))


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one == other or one.samefile(other)
    except OSError:
        return False


def moved(*, now: str, then: str, told_by: str = _SETTINGS, next_step: str = _SETTINGS_BACK) -> AppUnavailableError:
    """The error of an import that belongs to another place."""
    return AppUnavailableError(
        f"By {told_by} the app keeps its data in {now} now; when the file was staged, it was {then}.",
        next_step=next_step,
    )
