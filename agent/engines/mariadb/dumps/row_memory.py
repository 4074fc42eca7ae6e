"""How much of the server's memory the rows of a file can take beyond what the file itself brings, and a bound to it.

The one fact to know: a server keeps each value that it works out, and each step on the way, as long as the table is
open, and nothing bounds that (`max_session_mem_used` does not count it, seen with MariaDB 10.11): 100 columns with
`DEFAULT repeat('x',4000000)` took 0.4 GB when the table was made, 1.2 GB with one row, more for each such table. A row
of a MEMORY table takes as much as the longest that fits its columns. So what can come of a table's definition is
reckoned from its text before it is sent.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field

from agent.engines.mariadb.dumps.columns import TABLE, items, plain
from agent.engines.mariadb.dumps.formulas import FEW_BYTES, NUMBER, PART, kept_bytes
from agent.engines.mariadb.dumps.inserts import INSERT, STRING, row_lengths
from common.errors import ArchiveRefusedError, LimitExceededError

_MOST_BYTES = 256 << 20
"""For all tables of a file together. The server's own use is up to three times as much (see above)."""
_STEP_BYTES = 64 << 10
"""Lengths of rows are taken as multiples of it."""

_I = re.IGNORECASE | re.DOTALL
_MAKING = re.compile(rb"CREATE\b[^(`]*\bTABLE\b", _I)
_KEY = re.compile(
    rb"\s*(?:CONSTRAINT\b\s*(?:`[^`]*`\s*|(?!FOREIGN|PRIMARY|UNIQUE|CHECK)\w+\s+)?)?"
    rb"(?:PRIMARY\s+KEY|UNIQUE|FOREIGN\s+KEY|KEY|INDEX|FULLTEXT|SPATIAL|PERIOD\s+FOR)\b",
    _I,
)
_KEY_BYTES = 64 << 10
"""More than one takes of a row."""
_NO_COLUMN = re.compile(rb"\s*(?:CONSTRAINT|CHECK)\b", _I)
_LIKE = re.compile(rb"\s*LIKE\b", _I)
_HEAP = re.compile(rb"\bENGINE\s*=?\s*[`'\"]?(?:MEMORY|HEAP)\b", _I)
_WORKED_OUT = re.compile(
    rb"%b|`[^`]*`|\bDEFAULT\s+(?:NULL\b|[-+]?[0-9.]+|(?:_\w+\s*|[bBxX])?(?:%b))|\b(DEFAULT|AS|CHECK)\b"
    % (STRING, STRING),
    _I,
)
"""What begins a formula is in its group; what may look like it is not."""
_SIZED = re.compile(
    rb"\s*(?:N?(?:VAR)?CHAR(?:ACTER)?(?:\s+VARYING)?|(?:VAR)?BINARY|VECTOR)\s*\(\s*%b\s*\)" % NUMBER.pattern, _I
)
_SHORT = re.compile(
    rb"\s*(?:(?:TINY|SMALL|MEDIUM|BIG)?INT|INTEGER|BOOL|BOOLEAN|SERIAL|BIT|DEC|DECIMAL|NUMERIC|FIXED|FLOAT|DOUBLE|REAL"
    rb"|DATE|TIME|DATETIME|TIMESTAMP|YEAR|UUID|INET4|INET6|ENUM|SET|(?:CHAR|BINARY)\b(?!\s*\())\b",
    _I,
)
_TEXT = re.compile(rb"\s*(?:TINY)?(?:TEXT|BLOB)\b(?!\s*\()", _I)


class RowMemory:
    """Looks at what is about to be sent, in its order.

    Args:
        most_bytes: which a value that the server works out can have: its max_allowed_packet.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._tables: dict[str, list[_Table]] = {}
        self._held_bytes = 0

    def check(self, text: bytes, line: int) -> None:
        """Raise LimitExceededError where rows may take too much memory, ArchiveRefusedError where nobody can tell."""
        if head := INSERT.match(text):
            name = _folded(head["table"])
            rows = _Rows(text, head.end())
            # The server may know a table by another name.
            for table in self._tables.get(name) or [table for found in self._tables.values() for table in found]:
                self._held_bytes += table.add_rows(rows)
            self._require_room(name, line)
            return
        if _MAKING.match(text):
            made = _table_of(text, self._most_bytes)
            if made is None:
                raise ArchiveRefusedError(
                    f"Line {line}: the file makes a table in other words than a dump.",
                    next_step="Make a dump with mariadb-dump or mysqldump.",
                )
            self._tables.setdefault(made.name, []).append(made)
            # What needs no row is worked out now.
            self._held_bytes += made.add_rows(_Rows(b"", 0))
            self._require_room(made.name, line)

    def _require_room(self, name: str, line: int) -> None:
        if self._held_bytes > _MOST_BYTES:
            raise LimitExceededError(
                f"Line {line}, table {name}: what the server works out for the tables of this file, and those with the "
                f"engine MEMORY, could take more than {_MOST_BYTES >> 20} MiB of the server's memory at once.",
                next_step="Leave out at its source what makes long values (defaults, generated columns and checks with "
                "functions), or give MEMORY tables another engine, then dump again.",
            )


class _Rows:
    """Those of one statement, whose text is gone through once at most, however many tables ask."""

    def __init__(self, text: bytes, at: int) -> None:
        self._text = text
        self._at = at

    @property
    def count(self) -> int:
        return self._found[0]

    @property
    def longest_bytes(self) -> int:
        """0 without rows."""
        return self._found[1]

    @functools.cached_property
    def _found(self) -> tuple[int, int]:
        count = longest_bytes = 0
        for row_bytes in row_lengths(self._text, self._at):
            count += 1
            longest_bytes = max(longest_bytes, row_bytes)
        return count, longest_bytes


@dataclass
class _Table:
    """
    Attributes:
        size_bytes: of the statement that makes it.
        most_bytes: of any value.
        formulas: texts by which the server works values out, and most bytes that a column takes of what comes of one.
        limits: most bytes of a value in each column; None where only the row's text says it.
        row_bytes: of a row that stays in memory; 0: none does.
        rows_bytes: of its rows so far that stay in memory.
        worked_out_bytes: what the server may keep of working out its values; it is in memory beside the rows.
    """

    name: str
    size_bytes: int
    most_bytes: int
    formulas: list[tuple[bytes, int]] = field(default_factory=list)
    limits: dict[bytes, int | None] = field(default_factory=dict)
    row_bytes: int = 0
    rows_bytes: int = 0
    worked_out_bytes: int = 0
    _known: dict[int, int] = field(default_factory=dict)

    def add_rows(self, rows: _Rows) -> int:
        """How many bytes more it may hold with these rows."""
        held_before = self.rows_bytes + self.worked_out_bytes
        if self.row_bytes:
            self.rows_bytes += self.row_bytes * rows.count
        if self.formulas:
            depends_on_rows = self._worked_out(0) != self._worked_out(self.most_bytes)
            longest_bytes = rows.longest_bytes if depends_on_rows else 0
            self.worked_out_bytes = max(self.worked_out_bytes, self._worked_out(longest_bytes))
        return self.rows_bytes + self.worked_out_bytes - held_before

    def add_item(self, item: bytes) -> None:
        """What the table's bracket says of a column or a check."""
        begins = next((part.start(1) for part in _WORKED_OUT.finditer(item) if part[1]), None)
        name = None if _NO_COLUMN.match(item) else PART.search(item)
        limit = _limit_of(item[name.end() :], len(item)) if name else 0
        if begins is not None:
            self.formulas.append((item[begins:], self.most_bytes if limit is None else limit))
        if name is not None:
            is_given = begins is None or item[begins:].upper().startswith(b"CHECK")
            self.limits[plain(name[0]).lower()] = self.most_bytes if limit is None and not is_given else limit
            self.row_bytes += _row_bytes_of(item, name.end())

    def _worked_out(self, row_bytes: int) -> int:
        """Bytes that the server keeps of a row whose text is of this length."""
        row_bytes = -(-row_bytes // _STEP_BYTES) * _STEP_BYTES

        def of_name(name: bytes) -> int:
            name = plain(name).lower()
            if name not in self.limits:
                # A server also knows letters that are no ASCII by their other case.
                return FEW_BYTES if name.isascii() else self.most_bytes
            limit = self.limits[name]
            return min(row_bytes + self.size_bytes, self.most_bytes) if limit is None else limit

        if row_bytes not in self._known:
            self._known[row_bytes] = sum(
                kept_bytes(formula, of_name, most_bytes=self.most_bytes, stored_bytes=stored_bytes)
                for formula, stored_bytes in self.formulas
            )
        return self._known[row_bytes]


def _table_of(code: bytes, most_bytes: int) -> _Table | None:
    """The table that a statement makes; None: that cannot be told."""
    found = TABLE.match(code)
    described = described_items(code, found.end()) if found else None
    if found is None or described is None:
        return None
    table = _Table(_folded(found["name"]), len(code), most_bytes)
    for item in described:
        if not _KEY.match(item):
            table.add_item(item)
        elif formulas := _formulas_of_key(item):
            table.formulas.append((formulas, _KEY_BYTES))
    if not _HEAP.search(code):
        table.row_bytes = 0
    return table


def _formulas_of_key(item: bytes) -> bytes:
    """What a key is of that is of more than columns, as MySQL takes it; empty: it is not."""
    begins, last = None, b"a name"
    for part in PART.finditer(item):
        if part["mark"] == b"(":
            begins = part.start() if begins is None else begins
            if last in (b"(", b","):
                return item[begins:]
        last = part["mark"] or b"a name"
    return b""


def described_items(code: bytes, at: int) -> list[bytes] | None:
    """What a table's bracket says between its commas; None: it does not say what is in the table."""
    described = [b"".join(tokens) for tokens in items(code, at)]
    return None if any(_LIKE.match(item) for item in described) else described


def _folded(name: bytes) -> str:
    return plain(name).decode("utf-8", "replace").casefold()


def _row_bytes_of(item: bytes, at: int) -> int:
    """Bytes of a column in a row of a MEMORY table, by what follows the column's name from there on."""
    if sized := _SIZED.match(item, at):
        return 4 * int(sized[1])
    return 32 if _SHORT.match(item, at) else 1 << 16


def _limit_of(words: bytes, size_bytes: int) -> int | None:
    """Most bytes of a value, by what follows a column's name.

    Args:
        size_bytes: of all words about it, which a value of a list cannot exceed.
    """
    if sized := _SIZED.match(words):
        return 4 * int(sized[1])
    if _TEXT.match(words):
        return 1 << 16
    return FEW_BYTES + size_bytes if _SHORT.match(words) else None
