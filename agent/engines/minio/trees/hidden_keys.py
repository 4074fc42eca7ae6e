"""Keys below another object's key: MinIO stores and serves them, and no listing shows them, with one drive or more."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator

from agent.engines.minio.drive.sums import short_number_of

_NAMED = 5


class HiddenKeys:
    """Looks for them among a bucket's keys as they come, in any order."""

    def __init__(self) -> None:
        self._keys = array("Q")
        self._last = ""
        self._directories: set[int] = set()

    def meet(self, key: str) -> None:
        """One key; again for each of its versions."""
        if key == self._last:
            return
        self._last = key
        self._keys.append(short_number_of(key))
        self._directories.update(map(short_number_of, _above(key)))

    def finish(self, keys: Callable[[], Iterator[str]]) -> tuple[int, list[str]]:
        """How many there are, and the first of them.

        Args:
            keys: gives all that were met once more.
        """
        objects = {number for number in self._keys if number in self._directories}
        count, last = 0, ""
        names: list[str] = []
        for key in keys() if objects else ():
            if key != last and any(short_number_of(name) in objects for name in _above(key)):
                count += 1
                if count <= _NAMED:
                    names.append(key)
            last = key
        return count, names


def _above(key: str) -> Iterator[str]:
    """Keys of objects that hide this one; `a/` is no directory of `a/b` on a drive."""
    end = key.find("/")
    while 0 < end < len(key) - 1:
        yield key[:end]
        end = key.find("/", end + 1)
