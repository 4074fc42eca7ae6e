"""Whether what makes or drops a table or sequence names none of another database, and makes no rows on its way.

The facts to know: what everybody may do (grants to PUBLIC, to an account without a name, MariaDB's on databases that
begin with `test_`), who loads a file may do, too, wherever it is. And a server fills a table that it makes from what
stands behind its bracket: from a query, from MariaDB's `VALUES (f())`, or MySQL's `VALUES ROW(f())` and `TABLE t`.
"""

from __future__ import annotations

import re

from agent.engines.mariadb.dumps.columns import TABLE, end_of_items
from agent.engines.mariadb.dumps.inserts import NAME
from agent.engines.mariadb.dumps.sqltext import Statement

_I = re.IGNORECASE | re.DOTALL
_DROP = re.compile(
    rb"DROP\s+(?:TABLE|SEQUENCE)\s+(?:IF\s+EXISTS\s+)?%b(?:\s*,\s*%b)*(?:\s+(?:RESTRICT|CASCADE))?" % (NAME, NAME), _I
)
_SEQUENCE = re.compile(rb"CREATE\s+(?:OR\s+REPLACE\s+)?SEQUENCE\s+(?:IF\s+NOT\s+EXISTS\s+)?%b(?P<how>\s.*)?" % NAME, _I)
_OPTIONS = re.compile(rb"(?:[\w=,+-]|''|\"\"|``| )*")
"""Of a statement's code: no bracket, nor a name with its database's."""
_PARTITIONS = re.compile(rb"\bPARTITION BY .*", _I)
_ROWS = re.compile(
    rb"\b(?:SELECT|TABLE|AS|IGNORE|REPLACE|LIKE|WITH(?! SYSTEM VERSIONING\b)|VALUES?\b(?! (?:LESS THAN|IN)\b))\b", _I
)
"""What begins them, or comes before what does."""
_PARENT = re.compile(rb"\bREFERENCES ?(?:``|[\w$]+)+ ?\.", _I)
_VALUE_FOR = re.compile(rb"\bVALUE FOR\b", _I)
"""Of a sequence, as a person asks for it; servers write it as a function."""


def makes_table(text: bytes) -> bool:
    """Whether a statement without comments makes a table."""
    return TABLE.match(text) is not None


def has_foreign_parent(code: bytes) -> bool:
    """Whether a statement makes a foreign key to a table that it names with its database; of a statement's code."""
    return _PARENT.search(code) is not None


def fault_of(text: bytes, code: bytes) -> str:
    """What no dump has in a CREATE or DROP, for a sentence that says what the file has; empty: nothing.

    Args:
        text: a statement without comments that makes or drops a table or sequence.
        code: that statement's.
    """
    if text[:4].upper() == b"DROP":
        return "" if _DROP.fullmatch(text) else "it drops what is not called by a plain name"
    if sequence := _SEQUENCE.fullmatch(text):
        is_plain = _OPTIONS.fullmatch(Statement(sequence["how"] or b"", 0).code)
        return "" if is_plain else "it makes a sequence with more than options behind its name"
    table = TABLE.match(text)
    end = end_of_items(text, table.end()) if table else None
    if table is None or end is None:
        return "it makes what is not called by a plain name, or says nothing of its columns"
    if _VALUE_FOR.search(code):
        return "it takes a default from a sequence in other words than a server writes"
    behind = Statement(text[end:], 0).code
    if _ROWS.search(behind) or not _OPTIONS.fullmatch(_PARTITIONS.sub(b"", behind)):
        return "it makes a table with more than options behind its columns"
    return ""
