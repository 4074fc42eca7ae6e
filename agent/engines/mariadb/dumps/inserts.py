"""Rows as a dump writes them, and no more of them in one statement than its server can be stopped in.

The one fact to know: a killed session ends between statements, not between the rows of an INSERT (seen with MariaDB
10.11). 16 MB of `(1),(1),…` are 8 million rows, and each may get megabytes of defaults: so a file could fill the disk
of a server that was told to stop long before.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

from agent.engines.mariadb.dumps.sqltext import Statement

_I = re.IGNORECASE | re.DOTALL
NAME = rb"(?:(?:`[^`]*`)+|[A-Za-z_\x80-\xff](?:[\w\x80-\xff]|(?<=[A-Za-z0-9_])\$)*)"
"""Without quotes, none with a $ in which a client program may see the beginning of a string."""
STRING = rb"(?:'[^'\\]*(?:\\.[^'\\]*)*')+" rb'|(?:"[^"\\]*(?:\\.[^"\\]*)*")+'
_NUMBER = rb"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|0[xX][0-9A-Fa-f]+|0b[01]+"
_WORD = rb"(?i:NULL|DEFAULT|TRUE|FALSE)"
LITERAL = rb"(?:%b|%b|%b|[xXbB]'[0-9A-Fa-f]*'|_\w+\s*(?:%b))" % (_NUMBER, STRING, _WORD, STRING)
"""A value as dumps write it: no function, no variable, no column, nothing that the server would have to work out.
A comma or bracket has to come next."""
_A_ROW = rb"\s*\(\s*(?:%b(?:,\s*%b)*)?\s*\)\s*(,|\Z)" % (LITERAL, LITERAL)
_ROW = re.compile(_A_ROW, re.DOTALL)
ROWS_TOGETHER = 100
"""Looked at by one call, which takes less time than to go from row to row."""
_ROWS = re.compile(rb"(?:%b){1,%d}" % (_A_ROW, ROWS_TOGETHER), re.DOTALL)
INSERT = re.compile(
    rb"(?P<word>INSERT|REPLACE)\s+(?:IGNORE\s+|DELAYED\s+)?INTO\s+(?P<table>%b)\s*"
    rb"(?:\((?P<columns>\s*%b(?:\s*,\s*%b)*)\s*\)\s*)?VALUES?(?=\W)" % (NAME, NAME, NAME),
    _I,
)
_CALL = re.compile(rb"([A-Za-z_]\w*) ?\(")
_BOUNDED = frozenset(
    b"BIT BOOL TINYINT SMALLINT MEDIUMINT INT INTEGER BIGINT DECIMAL NUMERIC DEC FIXED FLOAT DOUBLE REAL "
    b"CHAR CHARACTER VARYING VARCHAR NCHAR NVARCHAR BINARY VARBINARY TEXT BLOB YEAR TIME TIMESTAMP DATETIME ENUM SET "
    b"VECTOR KEY INDEX CHECK RANGE LIST HASH COLUMNS THAN IN "
    b"CURRENT_TIMESTAMP NOW LOCALTIME LOCALTIMESTAMP CURRENT_DATE CURDATE UUID NEXTVAL JSON_VALID TO_DAYS "
    b"UNIX_TIMESTAMP".split()
)
"""What stands before a bracket in a table's definition and makes no value longer than a column's type says."""
_DEFAULT = re.compile(rb"\bDEFAULT (``|[A-Z_$\x80-\xff][\w$\x80-\xff]*)(?![\w$\x80-\xff]| ?['\"(])")
_PLAIN_DEFAULTS = frozenset(
    b"NULL TRUE FALSE CURRENT_TIMESTAMP LOCALTIME LOCALTIMESTAMP CURRENT_DATE CURRENT_TIME "
    b"CHARSET CHARACTER COLLATE".split()
)
"""What stands behind DEFAULT without brackets and is no column, whose value the server would copy."""
_ROWS_AT_ONCE = 10_000
"""Where a row gets 64 KB at most that its text does not give, as the server's own limit has it; dumps write as many."""
_BYTES_AT_ONCE = 256 << 20


@functools.lru_cache(maxsize=64)
def row_with(marked: tuple[bool, ...], *, end: bytes = rb"\s*(,|\Z)") -> re.Pattern[bytes]:
    """A row of as many values, each that is marked a group of its own.

    Args:
        end: what comes after it; a group that is empty behind the last row.
    """
    values = [rb"(%b)" % LITERAL if mark else LITERAL for mark in marked]
    return re.compile(rb"\s*\(\s*%b\s*\)%b" % (rb",\s*".join(values), end), re.DOTALL)


def is_plain(text: bytes) -> bool:
    """Whether a statement inserts rows of plain values and does nothing else."""
    head = INSERT.match(text)
    at = head.end() if head else len(text)
    while rows := _ROWS.match(text, at):
        at = rows.end()
        if at == len(text):
            return not text.endswith(b",")
    return False


def row_lengths(text: bytes, at: int) -> Iterator[int]:
    """Bytes of each row from there on."""
    while row := _ROW.match(text, at):
        yield row.end() - at
        if not row[1]:
            break
        at = row.end()


class Batches:
    """Gives each statement of a file with a bounded number of rows.

    Args:
        most_bytes: which the server takes in one statement, and which a value that it works out can have.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._most_rows = _ROWS_AT_ONCE

    def of(self, text: bytes) -> Iterator[bytes]:
        """What to send for a statement that may run: itself, or several with its rows, in one transaction."""
        head = INSERT.match(text)
        if head is None and _may_compute(text):
            # Of which table rows are does not matter: one such is reason enough.
            self._most_rows = max(1, _BYTES_AT_ONCE // self._most_bytes)
        if head is None or text.count(b"(") <= self._most_rows:
            yield text
            return
        yield b"BEGIN"
        beginning, first, rows, at = head[0], head.end(), 0, head.end()
        while row := _ROW.match(text, at):
            rows += 1
            at = row.end()
            if rows == self._most_rows or not row[1]:
                yield beginning + text[first : row.start(1)]
                first, rows = at, 0
            if not row[1]:
                break
        yield b"COMMIT"


def _may_compute(statement: bytes) -> bool:
    """Whether it makes a table that may have columns which the server works out for each row, of any length."""
    code = Statement(statement, 0).code.upper()
    if b"TABLE" not in code.split(b" ", 4)[:4]:
        return False
    return (
        b" AS (" in code
        or b" AS(" in code
        or not _BOUNDED.issuperset(_CALL.findall(code))
        or not _PLAIN_DEFAULTS.issuperset(_DEFAULT.findall(code))
    )
