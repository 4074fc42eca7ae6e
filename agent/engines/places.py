"""Where an app's data was when a file was staged: settings may name another database since.

What an import made is found by its key alone, on whichever server and beside whichever database, so before anything is
done with it, the place has to be the same.
"""

from __future__ import annotations

from collections.abc import Mapping

from common.errors import AppUnavailableError


def require_same_place(facts: Mapping[str, object], now: str) -> None:
    """
    Args:
        facts: an import's; they hold `place`, but not those of an older agent.
        now: the place that the agent's settings name, for a person.
    Raises:
        AppUnavailableError: it was another.
    """
    then = facts.get("place") or now
    if then != now:
        raise moved(now=now, then=str(then))


def moved(*, now: str, then: str) -> AppUnavailableError:
    """The error of an import that belongs to another place."""
    return AppUnavailableError(
        f"By the agent's settings the app keeps its data in {now} now; when the file was staged, it was {then}.",
        next_step="Put the agent's settings back as they were, then repeat the step; what was only staged can also be "
        "imported again.",
    )
