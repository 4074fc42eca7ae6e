"""What a server makes of comments with code in them: code for some releases, comments for others.

The one fact to know: which it is, the file decides by a number that it writes there. So a statement is read as the
server would read it, and sent as it was read: without such comments nobody can read it otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from agent.engines.mariadb.dumps.sqltext import STRINGS

_VERSION = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")
_MYSQLS_OWN = range(5_07_00, 10_00_00)
"""What MariaDB passes over in comments that are for both."""
_TOKEN = re.compile(rb"%b|/\*(?P<m>M?)!(?P<number>\d*)|(?P<end>\*/)" % STRINGS, re.DOTALL)
_END = b"*/"


@dataclass(frozen=True)
class Release:
    """The server that a dump goes into.

    Attributes:
        number: as such comments say it: 101119 for 10.11.19, 80033 for 8.0.33.
    """

    number: int
    is_mysql: bool

    @classmethod
    def of(cls, version: str) -> Release:
        """By what a server says of itself: `10.11.19-MariaDB-deb12`."""
        found = _VERSION.search(version)
        major, minor, patch = (int(part or 0) for part in found.groups()) if found else (0, 0, 0)
        return cls(major * 10_000 + minor * 100 + patch, "mariadb" not in version.lower())

    def read(self, statement: bytes) -> bytes:
        """A statement with what is code for this server laid open, and without what is not.

        Args:
            statement: of a `Splitter`, which sees to it that all servers see the same end of each such comment.
        """
        if b"/*" not in statement:
            return statement
        return b"".join(part for part, is_read in self._parts(statement) if is_read).strip()

    def left_out(self, statement: bytes) -> list[bytes]:
        """The code that `read` leaves out."""
        return [b" ".join(part.split()) for part, is_read in self._parts(statement) if not is_read]

    def _parts(self, statement: bytes) -> Iterator[tuple[bytes, bool]]:
        """What stands in comments and outside, and whether this server reads it; the comments' signs are blanks."""
        at = 0
        while found := _TOKEN.search(statement, at):
            yield statement[at : found.start()], True
            at = found.end()
            if found["number"] is None and not found["end"]:
                yield found[0], True
                continue
            yield b" ", True
            if not found["end"] and not self._runs(bool(found["m"]), int(found["number"] or 0)):
                end = statement.index(_END, at)
                yield statement[at:end], False
                at = end + len(_END)
        yield statement[at:], True

    def _runs(self, is_for_mariadb: bool, number: int) -> bool:
        if self.is_mysql:
            return not is_for_mariadb and number <= self.number
        return number <= self.number and (is_for_mariadb or number not in _MYSQLS_OWN)
