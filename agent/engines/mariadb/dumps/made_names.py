"""The tables, views and triggers that a file makes, and whether the server tells all of their names apart.

The one fact to know: a dump drops what it is about to make. To a server with lower_case_table_names=1, `DROP TABLE
users` drops the `Users` that came with its rows just before, without a word.
"""

from __future__ import annotations

import re

from agent.engines.mariadb.dumps import definitions
from agent.engines.mariadb.dumps.columns import plain
from agent.engines.mariadb.dumps.inserts import NAME
from common.errors import ArchiveIncompatibleError

_I = re.IGNORECASE | re.DOTALL
_MADE = re.compile(
    rb"CREATE\s+(?:OR\s+REPLACE\s+)?(?:TABLE|SEQUENCE)\s+(?:IF\s+NOT\s+EXISTS\s+)?(?P<name>%b)" % NAME, _I
)
_DROPPED = re.compile(rb"DROP\s+(?P<kind>TABLE|SEQUENCE|VIEW|TRIGGER)\s+(?:IF\s+EXISTS\s+)?(?P<names>.*)", _I)
_NAME = re.compile(NAME, re.DOTALL)
TABLES, VIEWS, TRIGGERS = "tables", "views", "triggers"


class MadeNames:
    """Looks at what is about to be sent, in its order.

    Args:
        folds_case: the server's lower_case_table_names is not 0.
    """

    def __init__(self, *, folds_case: bool) -> None:
        self._folds_case = folds_case
        self._made: dict[tuple[bool, str], str] = {}
        """By whether it is a trigger, whose names are their own, and name as the server tells them apart."""
        self._keys: dict[str, set[str]] = {TABLES: set(), VIEWS: set(), TRIGGERS: set()}

    @property
    def counts(self) -> dict[str, int]:
        """How many of each kind are there when all that was looked at has been carried out."""
        return {kind: len(keys) for kind, keys in self._keys.items()}

    def check(self, text: bytes, line: int) -> None:
        """
        Raises:
            ArchiveIncompatibleError: it would take the place of what is there under a name that is another in the file.
        """
        if text[:1] not in b"CcDd/":
            return
        if found := _MADE.match(text):
            self._make(TABLES, found["name"], line)
        elif found := _DROPPED.match(text):
            kind = found["kind"].decode().lower() + "s"
            kind = kind if kind in (VIEWS, TRIGGERS) else TABLES
            for name in _NAME.findall(found["names"]):
                self._drop(kind, name, line)
        elif made := definitions.made_by(text):
            kind, name = made
            if kind in (b"VIEW", b"TRIGGER"):
                self._make(VIEWS if kind == b"VIEW" else TRIGGERS, name, line)

    def _make(self, kind: str, name: bytes, line: int) -> None:
        key = self._require_known_by_one_name(kind, name, line)
        self._made[kind == TRIGGERS, key] = _text(name)
        self._keys[kind].add(key)

    def _drop(self, kind: str, name: bytes, line: int) -> None:
        key = self._require_known_by_one_name(kind, name, line)
        self._made.pop((kind == TRIGGERS, key), None)
        self._keys[kind].discard(key)

    def _require_known_by_one_name(self, kind: str, name: bytes, line: int) -> str:
        """The name as the server tells it apart."""
        said = _text(name)
        key = said.lower() if self._folds_case else said
        if (other := self._made.get((kind == TRIGGERS, key), said)) != said:
            kinds = TRIGGERS if kind == TRIGGERS else "tables or views"
            raise ArchiveIncompatibleError(
                f"Line {line}: the file has {kinds} whose names differ in case alone, {other} and {said}, and this "
                "server takes them for one (its lower_case_table_names is not 0).",
                next_step="Import it into a server with lower_case_table_names=0, or give one of them another name at "
                "its source, then dump again.",
            )
        return key


def _text(name: bytes) -> str:
    return plain(name).decode("utf-8", "replace")
