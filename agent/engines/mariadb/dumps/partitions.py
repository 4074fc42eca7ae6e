"""How many files the server has to open for the partitions of a file's tables, how many keys it makes in them, and
bounds to both.

The one fact to know: MyISAM and Aria open two files for each partition, all of them when a table is used, and keep
them open. A few tables of 8,000 partitions, which are a few lines of text, take all the files that a server may open,
and the app's own tables cannot be opened then. InnoDB opens no more than innodb_open_files, but takes 16 KiB of disk
for each key in each partition, 0.9 GB for a kilobyte of text, within one statement that nobody can look into.
"""

from __future__ import annotations

import re

from agent.engines.mariadb.dumps.formulas import NUMBER
from agent.engines.mariadb.dumps.sqltext import Statement
from common.errors import LimitExceededError

_MOST_PARTITIONS = 2000
_MOST_KEYS = 30_000
"""In all partitions of all tables: 0.5 GB."""
_MOST_OF_A_TABLE = 8192
"""A server takes no more."""
_I = re.IGNORECASE
_BY = re.compile(rb"\bPARTITION BY\b", _I)
_ENGINE = re.compile(rb"\bENGINE ?=? ?(\w+)", _I)
_KEY = re.compile(rb"\b(?:UNIQUE(?: (?:KEY|INDEX))?|KEY|INDEX)\b", _I)
_PARTS, _PARTS_WITHIN = re.compile(rb"\bPARTITIONS (\w+)", _I), re.compile(rb"\bSUBPARTITIONS (\w+)", _I)
_PART, _PART_WITHIN = re.compile(rb"\bPARTITION (?!BY\b)", _I), re.compile(rb"\bSUBPARTITION (?!BY\b)", _I)


class Partitions:
    """Counts those of a file's tables."""

    def __init__(self) -> None:
        self._opened = 0
        self._keys = 0

    def check(self, text: bytes, line: int) -> None:
        """Before a table is made.

        Raises:
            LimitExceededError: they are too many.
        """
        if text[:1] not in b"Cc" or b"PARTITION" not in text.upper():
            return
        code = Statement(text, line).code
        if not _BY.search(code):
            return
        parts = max(1, len(_PART.findall(code)), _number(_PARTS, code))
        count = max(len(_PART_WITHIN.findall(code)), parts * max(1, _number(_PARTS_WITHIN, code)))
        self._keys += count * (1 + len(_KEY.findall(code)))
        if self._keys > _MOST_KEYS:
            raise LimitExceededError(
                f"Line {line}: the tables of the file have more than {_MOST_KEYS:,} keys in their partitions, for each "
                "of which the server takes room on its disk.",
                next_step="Give these tables fewer partitions or keys at their source, then dump again.",
            )
        if {engine.upper() for engine in _ENGINE.findall(code)} != {b"INNODB"}:
            self._opened += count
        if self._opened > _MOST_PARTITIONS:
            raise LimitExceededError(
                f"Line {line}: the tables of the file that are not InnoDB have more than {_MOST_PARTITIONS:,} "
                "partitions, for each of which the server would keep files open.",
                next_step="Give these tables fewer partitions or the engine InnoDB at their source, then dump again.",
            )


def _number(pattern: re.Pattern[bytes], code: bytes) -> int:
    """What a number of partitions says; 0: there is none."""
    if (found := pattern.search(code)) is None:
        return 0
    number = NUMBER.fullmatch(found[1])
    return int(number[1]) if number else _MOST_OF_A_TABLE
