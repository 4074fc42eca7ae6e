"""How many things of a kind there were, and the first of them by name, for a sentence about them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from agent.archives.members import printable


@dataclass
class Tally:
    """A number of things and the first of their paths."""

    most_named: ClassVar[int] = 5

    count: int = 0
    paths: list[str] = field(default_factory=list)

    def add(self, path: str) -> None:
        self.count += 1
        if len(self.paths) < self.most_named:
            self.paths.append(path)

    def sentence(self, one: str, many: str) -> list[str]:
        """`one` or `many` with the count in place of {}, and the names; nothing when there are none."""
        if not self.count:
            return []
        names = ", ".join(printable(path) for path in self.paths)
        unnamed = self.count - len(self.paths)
        more = f" and {unnamed:,} more" if unnamed else ""
        return [f"{(one if self.count == 1 else many).format(self.count)}: {names}{more}."]
