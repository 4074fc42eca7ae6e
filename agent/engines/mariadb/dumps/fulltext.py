"""In how many FULLTEXT keys a column may be.

The one fact to know: such a key takes up to 20 times the size of its text on disk, in tables of its own that
information_schema does not count, and all keys of a row are written at once: 63 of them made 1.3 GB of a row of 1.2 MB
(MariaDB 10.11).
"""

from __future__ import annotations

import re
from collections import Counter

from agent.engines.mariadb.dumps.columns import TABLE, plain
from agent.engines.mariadb.dumps.inserts import NAME, STRING
from agent.engines.mariadb.dumps.row_memory import described_items
from common.errors import LimitExceededError

_MOST_OF_A_COLUMN = 4
_I = re.IGNORECASE | re.DOTALL
_KEY = re.compile(rb"\s*FULLTEXT\b", _I)
_STRING = re.compile(STRING, re.DOTALL)
_NAME = re.compile(NAME, re.DOTALL)
_PARSER = re.compile(rb"\bWITH\s+PARSER\b", _I)


def check(text: bytes, line: int) -> None:
    """Before a table is made.

    Raises:
        LimitExceededError: a column is in too many.
    """
    if text[:1] not in b"Cc" or b"FULLTEXT" not in text.upper():
        return
    found = TABLE.match(text)
    uses: Counter[bytes] = Counter()
    for item in (described_items(text, found.end()) or []) if found else []:
        if _KEY.match(item):
            item = _STRING.sub(b"", item)
            columns = item[item.find(b"(") : item.rfind(b")")]
            # One that makes words of each few letters has more of them.
            weight = 2 if _PARSER.search(item) else 1
            uses.update({plain(name).lower(): weight for name in _NAME.findall(columns)})
    if found and (many := next((name for name, count in uses.items() if count > _MOST_OF_A_COLUMN), None)):
        raise LimitExceededError(
            f"Line {line}, table {plain(found['name']).decode('utf-8', 'replace')}: its column "
            f"{many.decode('utf-8', 'replace')} is in more than {_MOST_OF_A_COLUMN} FULLTEXT keys, each of which takes "
            "many times the size of its text on the server's disk; one with a parser counts twice.",
            next_step="Drop those that the app does not need at its source, then dump again.",
        )
