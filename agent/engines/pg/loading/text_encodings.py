"""Encodings by whether text in them can be cut into statements without decoding it.

In those that a database can be in, each byte of a character of several is above 127. In the others one may be that of a
backslash or a quote (manual, "Supported Character Sets"), so that a server sees strings end elsewhere than `sqltext`
does. Imports little: it is used in a child that has to stay small.
"""

from __future__ import annotations

import re

_SERVERS = frozenset(
    b"ABC ALT EUCCN EUCJIS2004 EUCJP EUCKR EUCTW ISO88591 ISO885910 ISO885913 ISO885914 ISO885915 ISO885916"
    b" ISO88592 ISO88593 ISO88594 ISO88595 ISO88596 ISO88597 ISO88598 ISO88599 KOI8 KOI8R KOI8U LATIN1 LATIN10"
    b" LATIN2 LATIN3 LATIN4 LATIN5 LATIN6 LATIN7 LATIN8 LATIN9 MULEINTERNAL SQLASCII TCVN TCVN5712 UNICODE UTF8"
    b" VSCII WIN WIN1250 WIN1251 WIN1252 WIN1253 WIN1254 WIN1255 WIN1256 WIN1257 WIN1258 WIN866 WIN874"
    b" WINDOWS1250 WINDOWS1251 WINDOWS1252 WINDOWS1253 WINDOWS1254 WINDOWS1255 WINDOWS1256 WINDOWS1257"
    b" WINDOWS1258 WINDOWS866 WINDOWS874".split()
)
"""All names of them (src/common/encnames.c), as `_compared` gives them."""
_CLIENTS_ALONE = frozenset(
    b"BIG5 GB18030 GBK JOHAB MSKANJI SHIFTJIS SHIFTJIS2004 SJIS UHC WIN932 WIN936 WIN949 WIN950 WINDOWS932 WINDOWS936"
    b" WINDOWS949 WINDOWS950".split()
)


def is_of_servers(name: bytes) -> bool:
    """A database can be in this encoding."""
    return _compared(name) in _SERVERS


def is_of_clients_alone(name: bytes) -> bool:
    """PostgreSQL knows this encoding, and no database can be in it."""
    return _compared(name) in _CLIENTS_ALONE


def is_ascii(name: bytes) -> bool:
    """It stands for bytes of which nobody says what they are."""
    return _compared(name) == b"SQLASCII"


def _compared(name: bytes) -> bytes:
    """As PostgreSQL compares names: letters and digits alone, whatever their case."""
    return re.sub(rb"[^A-Z0-9]", b"", name.upper())
