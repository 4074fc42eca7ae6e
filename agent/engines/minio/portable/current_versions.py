"""Whether a MinIO will show the version of each key that a portable archive calls the latest.

MinIO orders the versions of a key by their times, to the nanosecond, and knows no other mark. Archives that no MinIO
wrote may have whole seconds, or a current version that is not the newest: then others would be read after an import, or
what was deleted. Exports tell versions of one moment apart by microseconds.
"""

from __future__ import annotations

import datetime as dt
from array import array
from collections import Counter
from collections.abc import Callable, Iterator

from agent.archives.members import printable
from agent.engines.minio.drive.sums import short_number_of
from agent.engines.minio.portable.form import Line
from common.errors import ArchiveIncompatibleError

_SECOND = 1_000_000_000


class CurrentVersions:
    """Looks at a bucket's lines as they come, in any order; those of a key mostly come together."""

    def __init__(self, bucket: str) -> None:
        self._bucket = bucket
        self._keys = array("Q")
        self._key = _Key()
        self._last = ""
        self._wrong = ""

    def meet(self, line: Line) -> None:
        """One line, that makes sense by itself."""
        if line.key != self._last:
            self._key, self._last = _Key(), line.key
            self._keys.append(short_number_of(line.key))
        self._add(self._key, line)

    def finish(self, lines: Callable[[], Iterator[Line]]) -> None:
        """All lines were met.

        Args:
            lines: gives them once more, for keys whose versions did not come together.
        Raises:
            ArchiveIncompatibleError: naming a key of which a MinIO would show another version.
        """
        if not self._wrong and len(set(self._keys)) < len(self._keys):
            apart = {number: _Key() for number, times in Counter(self._keys).items() if times > 1}
            for line in lines():
                if (key := apart.get(short_number_of(line.key))) is not None:
                    self._add(key, line)
        if self._wrong:
            raise ArchiveIncompatibleError(
                f"MinIO would show another version of {printable(f'{self._bucket}/{self._wrong}')} than the archive's "
                "latest: it takes the one with the latest time, and the archive has others of that time or later.",
                next_step="Give its latest version a later time in the archive's lines, or import other buckets with "
                "`bucket=`.",
            )

    def _add(self, key: _Key, line: Line) -> None:
        if not key.add(line) and not self._wrong:
            self._wrong = line.key


class _Key:
    """The times of a key's versions, in nanoseconds."""

    def __init__(self) -> None:
        self._current: int | None = None
        self._newest_other: int | None = None

    def add(self, line: Line) -> bool:
        """One version; False: the one that is called the latest is not, or not alone."""
        at = nanoseconds_of(line.modified)
        if line.is_latest:
            if self._current is not None:
                return False
            self._current = at
        else:
            self._newest_other = at if self._newest_other is None else max(at, self._newest_other)
        return self._current is None or self._newest_other is None or self._newest_other < self._current


def nanoseconds_of(moment: str) -> int:
    """Since 1970; datetime knows microseconds only."""
    fraction = moment.partition(".")[2]
    digits = fraction[: len(fraction) - len(fraction.lstrip("0123456789"))]
    seconds = int(dt.datetime.fromisoformat(moment).replace(microsecond=0).timestamp())
    return seconds * _SECOND + int(digits.ljust(9, "0"))
