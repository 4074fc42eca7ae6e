"""How many things of a kind there were, and the first of them by name, for a sentence about them."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.archives.members import printable

_NAMED = 5


@dataclass
class Tally:
    """A number of things and the first of their paths."""

    count: int = 0
    paths: list[str] = field(default_factory=list)

    def add(self, path: str) -> None:
        self.count += 1
        if len(self.paths) < _NAMED:
            self.paths.append(path)

    def sentence(self, one: str, many: str) -> list[str]:
        """`one` or `many` with the count in place of {}, and the names; nothing when there are none."""
        if not self.count:
            return []
        names = ", ".join(printable(path) for path in self.paths)
        return [
            f"{(one if self.count == 1 else many).format(self.count)}: {names}{', …' if self.count > _NAMED else ''}."
        ]
