"""Which sql_mode a file has set, followed through its statements as a server would.

Tables are made and rows loaded under a sql_mode of ours. There are modes under which the file's words for them would
mean something else; no dump of a server's sets one for them, only for routines and triggers, and takes it back.
"""

from __future__ import annotations

import re

from agent.engines.mariadb.dumps.statements import assignments
from common.errors import ArchiveIncompatibleError

_OTHERWISE = frozenset(
    b"PIPES_AS_CONCAT HIGH_NOT_PRECEDENCE NO_UNSIGNED_SUBTRACTION REAL_AS_FLOAT EMPTY_STRING_IS_NULL "
    b"TIME_ROUND_FRACTIONAL".split()
)
"""Under these `||`, `NOT a BETWEEN b AND c`, a difference below zero, REAL, '' and decimals are others."""
_OWN = b"sql_mode"
_TAKEN_FOR_GRANTED = {
    True: frozenset({b"NO_AUTO_CREATE_USER", b"TIME_ROUND_FRACTIONAL"}),
    False: frozenset({b"TIME_TRUNCATE_FRACTIONAL"}),
}
"""By whether a server is MySQL: modes that it does not have, since it is never otherwise."""
_LISTED = re.compile(
    rb"(?P<before>\bsql_mode\s*:?=\s*(?P<quote>['\"]))(?P<modes>[a-z_,]*)(?=(?P=quote))", re.IGNORECASE
)


def without_granted(text: bytes, *, is_mysql: bool) -> tuple[bytes, frozenset[bytes]]:
    """A statement that sets something, without modes that the server does not have and goes by; and those."""
    found: set[bytes] = set()

    def rest(listed: re.Match[bytes]) -> bytes:
        modes = listed["modes"].split(b",")
        left_out = {mode for mode in modes if mode.upper() in _TAKEN_FOR_GRANTED[is_mysql]}
        found.update(mode.upper() for mode in left_out)
        return listed["before"] + b",".join(mode for mode in modes if mode not in left_out)

    return _LISTED.sub(rest, text), frozenset(found)


class SqlModes:
    """Is shown what a file sets and what it makes, in their order."""

    def __init__(self) -> None:
        self._values = {_OWN: b""}

    def set(self, text: bytes) -> None:
        """A statement that sets something and was let through."""
        for name, value in assignments(text):
            if name == _OWN or name.startswith(b"@"):
                # A variable has the name of the setting that is kept in it, or of another.
                kept = self._values.get(value.removeprefix(b"@@session.").removeprefix(b"@@"), b"")
                self._values[name] = kept if value.startswith(b"@") else value.upper()

    def require_usual(self, line: int) -> None:
        """Before a table or rows.

        Raises:
            ArchiveIncompatibleError: they mean something else under the file's sql_mode.
        """
        if modes := sorted(_OTHERWISE.intersection(self._values[_OWN].split(b","))):
            raise ArchiveIncompatibleError(
                f"Line {line}: the file makes tables or rows under the sql_mode {b', '.join(modes).decode()}, by which "
                "they mean something else than by an import's.",
                next_step="Make a dump with mariadb-dump or mysqldump, which set a sql_mode of their own.",
            )
