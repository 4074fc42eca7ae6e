"""What a file is that is no RDB: named, so that whoever sent it knows which other one to take."""

from __future__ import annotations

import re

from common.seals import recipe_of_sql

_COMMAND = re.compile(rb"\s*(SET|HSET|HMSET|LPUSH|RPUSH|SADD|ZADD|SELECT|RESTORE|FLUSHALL|MULTI|XADD)\s", re.IGNORECASE)
_KINDS: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(rb"\*\d+\r\n"), "an append-only file (AOF), which holds commands instead of data"),
    (re.compile(rb"file \S+ seq \d+ type "), "the manifest of an append-only file (AOF)"),
    (re.compile(rb"SQLite format 3\0"), "an SQLite database"),
    (re.compile(rb"PGDMP|--\s*\n-- PostgreSQL"), "a dump of PostgreSQL"),
    (re.compile(rb"-- MySQL|-- MariaDB|/\*M?!"), "a dump of MySQL or MariaDB"),
    (re.compile(rb".{257}ustar", re.DOTALL), "a tar archive"),
    (re.compile(rb"\s*[\[{]"), "JSON"),
    (_COMMAND, "a list of commands"),
    (re.compile(rb"\s*<"), "XML or a web page"),
    (re.compile(rb"REDIS|VALKEY"), "something that begins like one and has no version"),
)


def what_it_is(head: bytes) -> str:
    """The end of the sentence "this is not an RDB file", for example ", it is JSON"."""
    if not head:
        return ", it is empty"
    if recipe := recipe_of_sql(head):
        return f", it is an export of recipe {recipe!r}"
    for pattern, name in _KINDS:
        if pattern.match(head):
            return f", it is {name}"
    return ""
