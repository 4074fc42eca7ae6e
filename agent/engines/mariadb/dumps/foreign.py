"""What an upload is that is no dump of MariaDB or MySQL: named, so that its sender knows which other one to take."""

from __future__ import annotations

import re

from common.kinds import EMPTY, MARIADB_SQL, MYSQL_SQL, TEXT, UNKNOWN, kind_of

DUMP_AGAIN = "Make one with mariadb-dump --single-transaction --result-file=FILE NAME, or mysqldump likewise."
_SQL = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:--|#|/\*|\\|(?:ALTER|BEGIN|CALL|COMMIT|CREATE|DELETE|DELIMITER|DO|DROP|EXECUTE|FLUSH"
    rb"|GRANT|INSERT|LOAD|LOCK|PREPARE|RENAME|REPLACE|REVOKE|SELECT|SET|SHOW|SOURCE|START|SYSTEM|TRUNCATE|UNLOCK"
    rb"|UPDATE|USE|WITH)\b)",
    re.IGNORECASE,
)
_HEADER = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:/\*M![^\n]*\n\s*)?-- (?:MariaDB|MySQL) dump ")
_DUMP = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:/\*M?!|(?:--|#)[^\n]*\b(?:dump|mathison-data)\b)", re.IGNORECASE)


def what_it_is(head: bytes) -> str:
    """The end of the sentence "the file is …"; empty when it may be SQL, or is empty."""
    kind = kind_of(head)
    is_dump = kind in (EMPTY, MARIADB_SQL, MYSQL_SQL)
    may_be_sql = kind in (TEXT, UNKNOWN) and (not head.strip() or _SQL.match(head))
    return "" if is_dump or may_be_sql else kind


def says_who_dumped(opening: bytes) -> bool:
    """Whether a file begins with the line in which mariadb-dump or mysqldump says its name."""
    return _HEADER.match(opening) is not None


def begins_as_dump(opening: bytes) -> bool:
    """Whether a file of which only this is known was one that a program made of a database."""
    return _DUMP.match(opening) is not None
