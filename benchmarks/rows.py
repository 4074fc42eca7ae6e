"""One line of the result: ours, theirs, and whether the target was met."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Target:
    """What is to be reached: a bound for a row's value or for ours as a multiple of theirs."""

    bound: Literal["<=", ">=", "<"]
    limit: float
    of: Literal["ratio", "ours"]

    def is_met(self, value: float) -> bool:
        match self.bound:
            case "<=":
                return value <= self.limit
            case ">=":
                return value >= self.limit
            case "<":
                return value < self.limit

    def __str__(self) -> str:
        return f"{self.of} {self.bound} {self.limit:g}"


def ratio_at_most(limit: float) -> Target:
    return Target("<=", limit, "ratio")


def ratio_at_least(limit: float) -> Target:
    return Target(">=", limit, "ratio")


def less_than(limit: float) -> Target:
    return Target("<", limit, "ours")


def at_least(limit: float) -> Target:
    return Target(">=", limit, "ours")


@dataclass(frozen=True)
class Row:
    """One result. `theirs` is None where there is nothing to compare with, `target` where none was set."""

    name: str
    ours: float
    unit: str
    target: Target | None
    theirs: float | None = None

    @property
    def ratio(self) -> float | None:
        """Ours as a multiple of theirs."""
        return self.ours / self.theirs if self.theirs else None

    @property
    def is_met(self) -> bool | None:
        """None: there is no target."""
        if self.target is None:
            return None
        value = self.ratio if self.target.of == "ratio" else self.ours
        return value is not None and self.target.is_met(value)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "ours": round(self.ours, 3),
            "theirs": None if self.theirs is None else round(self.theirs, 3),
            "unit": self.unit,
            "ratio": None if self.ratio is None else round(self.ratio, 3),
            "target": None if self.target is None else str(self.target),
            "met": self.is_met,
        }


Contestant = Callable[[], float]
"""Does its work once and returns the seconds that count."""


def medians(contestants: Mapping[str, Contestant], *, rounds: int, say: Callable[[str], None]) -> dict[str, float]:
    """The median seconds of each, measured in turns, so that what else the machine does meets all of them alike.

    The order changes from round to round: whoever comes second may find warm caches, or a disk still busy.
    """
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds):
        for name in _turned(list(contestants), number):
            found[name].append(contestants[name]())
            say(f"round {number + 1} of {rounds}: {name}: {found[name][-1]:.2f} s")
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def _turned(names: Sequence[str], by: int) -> list[str]:
    by %= len(names)
    return [*names[by:], *names[:by]]


def seconds_of(work: Callable[[], object]) -> float:
    """How long something takes."""
    began_at = time.perf_counter()
    work()
    return time.perf_counter() - began_at
