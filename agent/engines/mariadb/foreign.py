"""What an upload is that is no dump of MariaDB or MySQL: named, so that its sender knows which other one to take."""

from __future__ import annotations

import re

DUMP_AGAIN = "Make one with mariadb-dump --single-transaction --result-file=FILE NAME, or mysqldump likewise."
HEAD_BYTES = 512
"""What is looked at: a tar says what it is at 257."""
_KINDS: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(rb"PGDMP|(?:--\n)?-- PostgreSQL"), "a dump of PostgreSQL"),
    (re.compile(rb"SQLite format 3"), "a SQLite database"),
    (re.compile(rb"REDIS|VALKEY"), "a snapshot of Redis"),
    (re.compile(rb".{257}ustar", re.DOTALL), "a tar archive"),
    (re.compile(rb"age-encryption\.org/|-----BEGIN AGE "), "an encrypted file (age)"),
    (re.compile(rb"\xff\xfe|\xfe\xff"), "UTF-16 text, as PowerShell's `>` writes it"),
    (re.compile(rb"\0+\Z"), "nothing but zeros: its content was lost"),
    (re.compile(rb"(?:\xef\xbb\xbf)?\s*[\[{]"), "JSON"),
    (re.compile(rb"(?:\xef\xbb\xbf)?\s*<"), "a web page or XML document"),
)
_SQL = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:--|#|/\*|\\|(?:ALTER|BEGIN|CALL|COMMIT|CREATE|DELETE|DELIMITER|DO|DROP|EXECUTE|FLUSH"
    rb"|GRANT|INSERT|LOAD|LOCK|PREPARE|RENAME|REPLACE|REVOKE|SELECT|SET|SHOW|SOURCE|START|SYSTEM|TRUNCATE|UNLOCK"
    rb"|UPDATE|USE|WITH)\b)",
    re.IGNORECASE,
)
_DUMP = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:/\*M?!|(?:--|#)[^\n]*\b(?:dump|mathison-data)\b)", re.IGNORECASE)


def what_it_is(head: bytes) -> str:
    """The end of the sentence "the file is …"; empty when it may be SQL, or is empty."""
    for pattern, name in _KINDS:
        if pattern.match(head[:HEAD_BYTES]):
            return name
    if not head.strip() or _SQL.match(head):
        return ""
    return "something else" if b"\0" in head[:HEAD_BYTES] else "text"


def begins_as_dump(opening: bytes) -> bool:
    """Whether a file of which only this is known was one that a program made of a database."""
    return _DUMP.match(opening) is not None
