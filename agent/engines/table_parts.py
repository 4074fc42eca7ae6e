"""Tables of two databases compared without bringing their rows together: by digests of parts of them.

A part is one thing that is told by its name, or a block of rows with neighbouring ids. A digest is the XOR of those of
the rows, so blocks of different sizes can be compared: the larger ones are put together from smaller ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.item_changes import ItemChanges

MOST_PARTS = 2000
"""Of one table; where there are more things, they are not compared."""


@dataclass(frozen=True)
class Kind:
    """What is told apart in a table.

    Attributes:
        names: columns that tell one thing from another; none: rows are told by their `id`, block by block.
    """

    table: str
    names: Sequence[str] = ()


@dataclass(frozen=True)
class Parts:
    """A table's.

    Attributes:
        columns: rows of other columns cannot be compared.
        width: of blocks of ids, a power of two; 0: each part is a thing.
        parts: rows and digest of each.
    """

    columns: Sequence[str]
    width: int
    parts: Mapping[str, tuple[int, int]]

    def widened(self, width: int) -> Parts:
        """The same in larger blocks."""
        if not self.width or width == self.width:
            return self
        found: dict[str, tuple[int, int]] = {}
        for block, (rows, digest) in self.parts.items():
            above = str(int(block) * self.width // width)
            rows_before, digest_before = found.get(above, (0, 0))
            found[above] = rows_before + rows, digest_before ^ digest
        return Parts(self.columns, width, found)


def compare(now: Parts, after: Parts) -> ItemChanges:
    """What becomes of the rows. Of a block that differs, what it has more or less counts as added or removed, and the
    rest is not compared.
    """
    width = max(now.width, after.width)
    before, then = now.widened(width).parts, after.widened(width).parts
    is_comparable = list(now.columns) == list(after.columns)
    added = removed = changed = same = not_compared = 0
    for name in before.keys() | then.keys():
        rows_before, digest_before = before.get(name, (0, 0))
        rows_then, digest_then = then.get(name, (0, 0))
        both = min(rows_before, rows_then)
        added += rows_then - both
        removed += rows_before - both
        if is_comparable and (rows_before, digest_before) == (rows_then, digest_then):
            same += both
        elif is_comparable and not width:
            changed += both
        else:
            not_compared += both
    return ItemChanges(added=added, removed=removed, changed=changed, same=same, not_compared=not_compared)


def compare_all(now: Mapping[str, Parts], after: Mapping[str, Parts]) -> dict[str, ItemChanges]:
    """By kind; without what is not known of both."""
    return {kind: compare(now[kind], after[kind]) for kind in after if kind in now}


def width_for(highest: int) -> int:
    """Of blocks, so that ids up to this one make few enough."""
    width = 1
    while highest // width >= MOST_PARTS:
        width *= 2
    return width
