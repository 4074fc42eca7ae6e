"""What becomes of the things of one kind in an import: recipes tell it, engines find it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ItemChanges:
    """What becomes of one kind of thing in an import; see ItemChanges in transfer.proto."""

    added: int = 0
    removed: int = 0
    changed: int = 0
    same: int = 0
    not_compared: int = 0

    @classmethod
    def between(cls, now: Mapping[str, object], after: Mapping[str, object]) -> ItemChanges:
        """Things by name, each with what tells its content, such as a digest; None on either side: not compared."""
        changed = same = not_compared = 0
        for name in now.keys() & after.keys():
            if now[name] is None or after[name] is None:
                not_compared += 1
            elif now[name] == after[name]:
                same += 1
            else:
                changed += 1
        return cls(
            added=len(after.keys() - now.keys()),
            removed=len(now.keys() - after.keys()),
            changed=changed,
            same=same,
            not_compared=not_compared,
        )
