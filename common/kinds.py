"""What a file is, told from its first bytes: one word for each kind, for whoever sent the wrong one.

A kind ends the sentence "the file is …". A beginning is no proof: who reads a file finds out whether it is one.
"""

from __future__ import annotations

import re

from common.codecs import codec_of

HEAD_BYTES = 512
"""What is looked at: a tar says what it is at 257."""

EMPTY = "empty"
TAR = "a tar archive"
ZIP = "a zip archive"
POSTGRESQL_CUSTOM = "a PostgreSQL dump in custom format"
POSTGRESQL_SQL = "a PostgreSQL dump in SQL"
MARIADB_SQL = "a MariaDB dump"
MYSQL_SQL = "a MySQL dump"
SQLITE = "a SQLite database"
REDIS = "a Redis snapshot (RDB)"
VALKEY = "a Valkey snapshot (RDB)"
JSON = "JSON"
UTF16 = "UTF-16 text, as PowerShell's `>` writes it"
TEXT = "text"
UNKNOWN = "of an unknown kind"

_BOM = rb"(?:\xef\xbb\xbf)?"
_LINE = rb"(?:[^\0]*\n)?"
_OURS = rb'-- mathison-data archive: \{"recipe":'
_KINDS = (
    (rb"\Z", EMPTY),
    (rb"\0+\Z", "nothing but zeros: its content was lost"),
    (rb".{257}ustar", TAR),
    (rb"PGDMP", POSTGRESQL_CUSTOM),
    (rb"SQLite format 3\0", SQLITE),
    (rb"REDIS\d{4}", REDIS),
    (rb"VALKEY\d{3}", VALKEY),
    (rb"REDIS|VALKEY", "something that begins like a Redis snapshot and has no version"),
    (rb"\*\d+\r\n", "an append-only file of Redis (AOF), which holds commands instead of data"),
    (rb"file \S+ seq \d+ type ", "the manifest of an append-only file of Redis (AOF)"),
    (rb"age-encryption\.org/|-----BEGIN AGE ", "an encrypted file (age)"),
    (rb"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (rb"Rar!\x1a", "a RAR archive"),
    (rb"BZh[1-9]", "a bzip2 file"),
    (rb"\x04\x22\x4d\x18", "an lz4 file"),
    (rb"%PDF", "a PDF document"),
    (rb"\x7fELF", "a program"),
    (rb"\xff\xfe|\xfe\xff|(?:[\t\n\r -~]\0){4}|(?:\0[\t\n\r -~]){4}", UTF16),
    (_BOM + rb"\s*[\[{]", JSON),
    (_BOM + rb"\s*<", "a web page or XML document"),
    (_OURS + rb'"postgresql"|' + _LINE + rb"-- PostgreSQL database (?:cluster )?dump", POSTGRESQL_SQL),
    (_OURS + rb'"mariadb"|/\*M!|' + _LINE + rb"-- MariaDB dump", MARIADB_SQL),
    (rb"/\*!\d{5} |" + _LINE + rb"-- MySQL dump", MYSQL_SQL),
    (rb"PRAGMA foreign_keys ?=", "a SQLite dump in SQL"),
    (rb"[^\0-\x08\x0e-\x1a\x1c-\x1f\x7f]+\Z", TEXT),
    (rb"", UNKNOWN),
)
"""Of each, how it begins. Compiled when they are asked for, which most children that could ask never do."""


def kind_of(head: bytes) -> str:
    """
    Args:
        head: its first HEAD_BYTES at least, or all there are.
    """
    if codec := codec_of(head):
        return ZIP if codec == "zip" else f"a {codec} file"
    return next(kind for beginning, kind in _KINDS if re.match(beginning, head[:HEAD_BYTES], re.DOTALL))
