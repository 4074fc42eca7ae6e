"""A cell of the version matrix: data of one server brought into another, equal or refused before anything changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

import pytest

PROPERTY = "matrix cell"


@dataclass(frozen=True)
class Cell:
    """What came of it.

    Attributes:
        table: title of the table that it belongs to.
        outcome: "equal", or the reason of the refusal, for example "ARCHIVE_INCOMPATIBLE".
    """

    table: str
    source: str
    target: str
    outcome: str


Note = Callable[[Cell], None]
"""Writes a cell down for docs/matrix.md."""


def note_on(request: pytest.FixtureRequest) -> Note:
    """Passes through pytest-xdist with the test's report."""

    def note(cell: Cell) -> None:
        request.node.user_properties.append((PROPERTY, asdict(cell)))

    return note


def as_markdown(cells: Iterable[Cell]) -> str:
    """A table for each title, sources down and targets across, in the order in which they came."""
    tables: dict[str, dict[tuple[str, str], str]] = {}
    for cell in cells:
        tables.setdefault(cell.table, {})[cell.source, cell.target] = cell.outcome
    return "\n".join(_table(title, outcomes) for title, outcomes in sorted(tables.items()))


def _table(title: str, outcomes: dict[tuple[str, str], str]) -> str:
    sources = sorted({source for source, _ in outcomes})
    targets = sorted({target for _, target in outcomes})
    lines = [
        f"## {title}\n",
        "| from \\ into | " + " | ".join(targets) + " |",
        "|---" * (len(targets) + 1) + "|",
    ]
    for source in sources:
        cells = (outcomes.get((source, target), "") for target in targets)
        lines.append(f"| {source} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])
