"""Columns of a table, from the statement that makes it as servers write it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agent.engines.mariadb.dumps.inserts import NAME

TABLE = re.compile(
    rb"CREATE\s+(?:OR\s+REPLACE\s+)?TABLE\s+(?P<if>IF\s+NOT\s+EXISTS\s+)?(?P<name>%b)\s*\(" % NAME,
    re.IGNORECASE | re.DOTALL,
)
_TOKEN = re.compile(
    rb"""'[^'\\]*(?:\\.[^'\\]*)*'|"[^"\\]*(?:\\.[^"\\]*)*"|`[^`]*`(?:`[^`]*`)*|[(),]|[^'"`(),]+""", re.DOTALL
)
_NAME_AT_START = re.compile(rb"\s*(%b)" % NAME, re.DOTALL)
_NO_COLUMN = frozenset(b"PRIMARY KEY INDEX UNIQUE CONSTRAINT FULLTEXT SPATIAL FOREIGN CHECK PERIOD LIKE".split())
_BLANK = re.compile(rb"(['\"])(?:\\? )*\1")
"""A value that a server keeps as '', since it cuts blanks off."""


@dataclass(frozen=True)
class Column:
    """
    Attributes:
        name: without quotes.
        type: what follows the name.
        is_computed: the server works its values out and takes none.
        is_period: the server sets it to when a row of a system-versioned table begins or ends.
        is_enum: an ENUM that has no '' among its values, which are all texts in quotes. What is none of them, a server
            keeps as ''.
    """

    name: bytes
    type: bytes = b""
    is_computed: bool = False
    is_period: bool = False
    is_enum: bool = False


@dataclass(frozen=True)
class Table:
    """
    Attributes:
        name: without quotes.
        may_be_there: it is made if there is none of the name.
    """

    name: bytes
    columns: Sequence[Column]
    may_be_there: bool = False

    def named(self, names: Sequence[bytes]) -> list[Column] | None:
        """The columns of these names, in their order; None: it lacks one."""
        known = {column.name.lower(): column for column in self.columns}
        found = [known.get(name.lower()) for name in names]
        return [column for column in found if column] if all(found) else None


def plain(name: bytes) -> bytes:
    """A name without its quotes."""
    return name[1:-1].replace(b"``", b"`") if name.startswith(b"`") else name


def table_made_by(statement: bytes) -> Table | None:
    """The table that a statement makes; None: it makes none, or not in the words that servers use."""
    found = TABLE.match(statement)
    if found is None:
        return None
    columns = []
    for item in items(statement, found.end()):
        name = _NAME_AT_START.match(b"".join(item[:1]))
        if name is None:
            return None
        if name[1].upper() not in _NO_COLUMN:
            columns.append(_column(plain(name[1]), [item[0][name.end() :], *item[1:]]))
    return Table(plain(found["name"]), columns, may_be_there=found["if"] is not None)


def _column(name: bytes, tokens: Sequence[bytes]) -> Column:
    outer, depth = [], 0
    for token in tokens:
        depth -= token == b")"
        if depth == 0:
            outer.append(token if token[:1] not in b"'\"`" or not token else b"''")
        depth += token == b"("
    words = b" ".join(outer).upper().split()
    at = words.index(b"AS") if b"AS" in words else len(words)
    is_period = words[at + 1 : at + 3] in ([b"ROW", b"START"], [b"ROW", b"END"])
    values = tokens[tokens.index(b"(") + 1 : tokens.index(b")")] if b"(" in tokens and b")" in tokens else []
    return Column(
        name,
        b"".join(tokens),
        is_computed=at < len(words) and not is_period,
        is_period=is_period,
        is_enum=words[:1] == [b"ENUM"] and all(_is_text(value) for value in values),
    )


def _is_text(value: bytes) -> bool:
    """Whether what an ENUM lists is a text, and not empty; also for what stands between two of them."""
    return value.strip() in (b"", b",") if value[:1] not in (b"'", b'"') else not _BLANK.fullmatch(value)


def items(text: bytes, start: int) -> Iterator[list[bytes]]:
    """What stands between the commas of a bracket that is open already, as tokens."""
    item: list[bytes] = []
    for found, depth in _depths(text, start):
        token = found[0]
        if depth == 0 or (depth == 1 and token == b","):
            yield item
            item = []
        elif item or token.strip():
            item.append(token)


def end_of_items(text: bytes, start: int) -> int | None:
    """Where the text goes on behind a bracket that is open already; None: it is not closed."""
    return next((found.end() for found, depth in _depths(text, start) if depth == 0), None)


def _depths(text: bytes, start: int) -> Iterator[tuple[re.Match[bytes], int]]:
    """The tokens up to the end of a bracket that is open already, and how many are open behind each."""
    depth = 1
    for found in _TOKEN.finditer(text, start):
        depth += (found[0] == b"(") - (found[0] == b")")
        yield found, depth
        if depth == 0:
            return
