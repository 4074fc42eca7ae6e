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
from collections.abc import Callable
from dataclasses import dataclass, field

from agent.engines.mariadb.columns import TABLE, items, plain
from agent.engines.mariadb.inserts import INSERT, STRING, row_lengths
from agent.engines.mariadb.sqltext import code_within
from common.errors import ArchiveRefusedError, LimitExceededError

_MOST_BYTES = 256 << 20
"""For all tables of a file together. The server's own use is up to three times as much (see above)."""
_FEW_BYTES = 96
"""A number, a date, a hash: whatever does not grow."""
_STEP_BYTES = 64 << 10
"""Lengths of rows are taken as multiples of it."""

_I = re.IGNORECASE | re.DOTALL
_MAKING = re.compile(rb"CREATE\b[^(`]*\bTABLE\b", _I)
_KEY = re.compile(
    rb"\s*(?:CONSTRAINT\b\s*(?:`[^`]*`\s*|(?!FOREIGN|PRIMARY|UNIQUE|CHECK)\w+\s+)?)?"
    rb"(?:PRIMARY\s+KEY|UNIQUE|FOREIGN\s+KEY|KEY|INDEX|FULLTEXT|SPATIAL|PERIOD\s+FOR)\b",
    _I,
)
_NO_COLUMN = re.compile(rb"\s*(?:CONSTRAINT|CHECK)\b", _I)
_LIKE = re.compile(rb"\s*LIKE\b", _I)
_MARKER = re.compile(rb"/\*M?!\d*|\*/")
_HEAP = re.compile(rb"\bENGINE\s*=?\s*[`'\"]?(?:MEMORY|HEAP)\b", _I)
_PART = re.compile(
    rb"(?P<string>(?:_\w+\s*)?(?:%b))|(?P<name>`[^`]*`(?:`[^`]*`)*|[A-Za-z_$\x80-\xff][\w$\x80-\xff]*)"
    rb"|(?P<number>[0-9][\w.]*)|(?P<mark>[(),]|->)" % STRING,
    re.DOTALL,
)
_WORKED_OUT = re.compile(
    rb"%b|`[^`]*`|\bDEFAULT\s+(?:NULL\b|[-+]?[0-9.]+|(?:_\w+\s*|[bBxX])?(?:%b))|\b(DEFAULT|AS|CHECK)\b"
    % (STRING, STRING),
    _I,
)
"""What begins a formula is in its group; what may look like it is not."""
_SIZED = re.compile(rb"\s*(?:N?(?:VAR)?CHAR(?:ACTER)?(?:\s+VARYING)?|(?:VAR)?BINARY|VECTOR)\s*\(\s*(\d{1,9})\s*\)", _I)
_SHORT = re.compile(
    rb"\s*(?:(?:TINY|SMALL|MEDIUM|BIG)?INT|INTEGER|BOOL|BOOLEAN|SERIAL|BIT|DEC|DECIMAL|NUMERIC|FIXED|FLOAT|DOUBLE|REAL"
    rb"|DATE|TIME|DATETIME|TIMESTAMP|YEAR|UUID|INET4|INET6|ENUM|SET|CHAR|BINARY)\b",
    _I,
)
_TEXT = re.compile(rb"\s*(?:TINY)?(?:TEXT|BLOB)\b(?!\s*\()", _I)

_PLAIN = re.compile(rb"'[^'\\]*'")
_SHORT_OF = frozenset(
    b"ABS ACOS ADDDATE ADDTIME ASCII ASIN ATAN ATAN2 BIN BIN_TO_UUID BIT_COUNT BIT_LENGTH CEIL CEILING "
    b"CHARACTER_LENGTH CHAR_LENGTH CONV CONVERT_TZ COS COT CRC32 CRC32C CURDATE CURRENT_DATE CURRENT_ROLE "
    b"CURRENT_TIME CURRENT_TIMESTAMP CURRENT_USER CURTIME DATABASE DATE DATEDIFF DATE_ADD DATE_SUB DAY DAYNAME "
    b"DAYOFMONTH DAYOFWEEK DAYOFYEAR DEGREES EXP EXTRACT FIELD FIND_IN_SET FLOOR FROM_DAYS HOUR INET6_ATON "
    b"INET6_NTOA INET_ATON INET_NTOA INSTR ISNULL IS_IPV4 IS_IPV6 IS_UUID JSON_CONTAINS JSON_CONTAINS_PATH "
    b"JSON_DEPTH JSON_EXISTS JSON_LENGTH JSON_OVERLAPS JSON_TYPE JSON_VALID LASTVAL LAST_DAY LENGTH LENGTHB LN "
    b"LOCALTIME LOCALTIMESTAMP LOCATE LOG LOG10 LOG2 MAKEDATE MAKETIME MD5 MICROSECOND MINUTE MOD MONTH MONTHNAME "
    b"NEXTVAL NOW OCT OCTET_LENGTH ORD PERIOD_ADD PERIOD_DIFF PI POINT POSITION POW POWER QUARTER RADIANS RAND "
    b"REGEXP_INSTR REGEXP_LIKE ROUND SCHEMA SECOND SEC_TO_TIME SHA SHA1 SHA2 SIGN SIN SQRT STRCMP STR_TO_DATE "
    b"ST_DISTANCE ST_X ST_Y SUBDATE SUBTIME SYSDATE SYS_GUID TAN TIME TIMEDIFF TIMESTAMP TIMESTAMPADD "
    b"TIMESTAMPDIFF TIME_TO_SEC TO_DAYS TO_SECONDS TRUNCATE UNIX_TIMESTAMP USER UTC_DATE UTC_TIME UTC_TIMESTAMP "
    b"UUID UUID_SHORT UUID_TO_BIN UUID_V4 UUID_V7 VERSION WEEK WEEKDAY WEEKOFYEAR YEAR YEARWEEK".split()
)
_NO_CALL = frozenset(
    b" AND AS BETWEEN BIGINT BIT BOOL CASE CHARACTER CHECK DATETIME DEC DECIMAL DEFAULT DIV DOUBLE ELSE FIXED "
    b"FLOAT IN INDEX INT INTEGER IS KEY LIKE MEDIUMINT NCHAR NOT NUMERIC NVARCHAR OR REAL REGEXP RLIKE SIGNED "
    b"SMALLINT THEN TINYINT UNSIGNED VARBINARY VARCHAR VARYING WHEN XOR".split()
)
"""Words before a bracket that call nothing."""
_JOINED_OF = frozenset(
    b"AES_DECRYPT AES_ENCRYPT CAST CHAR COALESCE CONCAT CONVERT ELT FROM_BASE64 GREATEST IF IFNULL INSERT "
    b"JSON_COMPACT JSON_QUERY JSON_UNQUOTE JSON_VALUE LCASE LEAST LEFT LOWER LTRIM MAKE_SET MID NULLIF NVL NVL2 "
    b"REGEXP_SUBSTR REVERSE RIGHT RTRIM SUBSTR SUBSTRING SUBSTRING_INDEX TRIM UCASE UNHEX UPPER".split()
)
"""Not longer than what goes into them together."""
_ESCAPED_OF = frozenset(b"DATE_FORMAT FORMAT HEX JSON_ARRAY JSON_OBJECT JSON_QUOTE QUOTE TIME_FORMAT TO_BASE64".split())
_ESCAPED = 12
"""At most so many times as long: a character as `\\u0000`, which may take two bytes each, a month's name for `%M`."""
_NUMBERED_OF = {b"REPEAT": 1, b"LPAD": 1, b"RPAD": 1, b"SPACE": 0, b"BINARY": 0}
"""As long as a number says, which is this one of what goes into them."""


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
        code = code_within(text) or text
        if _MAKING.match(code):
            made = _table_of(code, self._most_bytes)
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

    def _worked_out(self, row_bytes: int) -> int:
        """Bytes that the server keeps of a row whose text is of this length."""
        row_bytes = -(-row_bytes // _STEP_BYTES) * _STEP_BYTES

        def of_name(name: bytes) -> int:
            name = plain(name).lower()
            if name not in self.limits:
                # A server also knows letters that are no ASCII by their other case.
                return _FEW_BYTES if name.isascii() else self.most_bytes
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
    if found is None:
        return None
    table = _Table(_folded(found["name"]), len(code), most_bytes)
    is_comment = False
    for tokens in items(code, found.end()):
        if is_comment:
            return None
        for at, token in enumerate(tokens):
            if token[:1] in b"'\"`":
                continue
            if is_comment and token in (b"(", b")", b","):
                # Some servers see it, others do not.
                return None
            for marker in _MARKER.findall(token):
                is_comment = marker != b"*/"
            tokens[at] = _MARKER.sub(b" ", token)
        item = b"".join(tokens)
        if _LIKE.match(item):
            return None
        if _KEY.match(item):
            # Only where it is of more than columns, which MySQL takes.
            if re.search(rb"\(\s*\(", item):
                table.formulas.append((item, most_bytes))
            continue
        begins = next((part.start(1) for part in _WORKED_OUT.finditer(item) if part[1]), None)
        name = None if _NO_COLUMN.match(item) else _PART.search(item)
        limit = _limit_of(item[name.end() :], len(item)) if name else 0
        if begins is not None:
            table.formulas.append((item[begins:], most_bytes if limit is None else limit))
        if name is not None:
            is_given = begins is None or item[begins:].upper().startswith(b"CHECK")
            table.limits[plain(name[0]).lower()] = most_bytes if limit is None and not is_given else limit
            table.row_bytes += _row_bytes_of(item, name.end())
    if is_comment:
        return None
    if not _HEAP.search(_MARKER.sub(b" ", code)):
        table.row_bytes = 0
    return table


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
    return _FEW_BYTES + size_bytes if _SHORT.match(words) else None


@dataclass
class _Call:
    """A bracket that is still open.

    Attributes:
        parts: of each that is complete its most bytes and, where it is one number or string, that.
    """

    name: bytes
    parts: list[tuple[int, bytes]] = field(default_factory=list)
    size_bytes: int = 0
    words: list[bytes] = field(default_factory=list)

    def add(self, size_bytes: int, word: bytes = b"") -> None:
        self.size_bytes += size_bytes
        self.words.append(word)

    def end_part(self) -> None:
        self.parts.append((self.size_bytes, self.words[0] if len(self.words) == 1 else b""))
        self.size_bytes, self.words = 0, []


def kept_bytes(formula: bytes, of_name: Callable[[bytes], int], *, most_bytes: int, stored_bytes: int) -> int:
    """Most bytes that the server keeps to work out a formula: of what each call gives, and of what is stored.

    Args:
        of_name: most bytes of what has this name; asked for any name.
        most_bytes: of any value.
        stored_bytes: most of what comes of it that is stored.
    """
    kept, open_calls, name = 0, [_Call(b"")], b""

    def close() -> None:
        nonlocal kept
        call = open_calls.pop()
        call.end_part()
        size_bytes = min(_given_by(call, most_bytes), most_bytes)
        if call.name and call.name not in _NO_CALL:
            kept += size_bytes
        open_calls[-1].add(size_bytes)

    for part in _PART.finditer(formula):
        mark = part["mark"]
        if name and mark != b"(":
            open_calls[-1].add(of_name(name))
        if mark == b"(":
            open_calls.append(_Call(plain(name).upper()))
        elif mark == b")" and len(open_calls) > 1:
            close()
        elif mark == b",":
            open_calls[-1].end_part()
        elif mark == b"->":
            # To any number of places.
            kept += most_bytes
            open_calls[-1].add(most_bytes)
        elif not mark and not part["name"]:
            open_calls[-1].add(len(part[0]) - 2 * bool(part["string"]), part[0])
        name = part["name"] or b""
    if name:
        open_calls[-1].add(of_name(name))
    while len(open_calls) > 1:
        close()
    open_calls[0].end_part()
    return kept + min(sum(size for size, _ in open_calls[0].parts), stored_bytes)


def _given_by(call: _Call, most_bytes: int) -> int:
    """Most bytes of what a call gives."""
    sizes = [size_bytes for size_bytes, _ in call.parts]
    words = [word for _, word in call.parts]
    if call.name in _SHORT_OF:
        return _FEW_BYTES
    if not call.name or call.name in _NO_CALL or call.name in _JOINED_OF:
        return _FEW_BYTES + sum(sizes)
    if call.name in _ESCAPED_OF:
        return _FEW_BYTES + _ESCAPED * sum(sizes)
    if call.name == b"CONCAT_WS":
        return len(sizes) * max(sizes)
    if call.name == b"JSON_EXTRACT" and all(word and b"*" not in word for word in words[1:]):
        return max(1, len(sizes) - 1) * (sizes[0] + _FEW_BYTES)
    if (
        call.name == b"REPLACE"
        and len(words) == 3
        and _PLAIN.fullmatch(words[1])
        and 0 < len(words[2]) <= len(words[1])
    ):
        return sizes[0]
    at = _NUMBERED_OF.get(call.name, len(words))
    if at < len(words) and words[at].isdigit():
        return int(words[at]) * (sizes[0] if call.name == b"REPEAT" else 4)
    return most_bytes
