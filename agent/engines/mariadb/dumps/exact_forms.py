"""Which literals a column keeps as they are written: those with no more decimals than it has.

The one fact to know: what a server cuts off it only notes, whatever its sql_mode, or does not even that (seen with
MariaDB 10.11: nothing is said of 1.7 in an INT, of .999 in a DATETIME, of 1.23456 in a FLOAT(7,3)). So it is with
blanks at the end of a VARCHAR, the date in a TIME, and '2' in an ENUM that has no such value: it is the second then.
So moments are taken in the forms that dumps write them in, and no other.
"""

from __future__ import annotations

import decimal
import functools
import re
from collections.abc import Sequence

from agent.engines.mariadb.dumps.columns import Column
from agent.engines.mariadb.dumps.inserts import LITERAL, ROWS_TOGETHER, STRING, row_with

_I = re.IGNORECASE
_SIZE = rb"\(\s*0*(?P<%b>[0-9]{1,9})\s*\)"
_TYPE = re.compile(
    rb"\s*(?:(?P<whole>(?:TINY|SMALL|MEDIUM|BIG)?INT|INTEGER|BOOL|BOOLEAN|SERIAL|YEAR)\b"
    rb"|(?P<exact>DECIMAL|NUMERIC|DEC|FIXED)\b(?:\s*\(\s*\d+\s*(?:,\s*0*(?P<scale>\d{1,9})\s*)?\))?"
    rb"|(?:FLOAT|DOUBLE(?:\s+PRECISION)?|REAL)\s*\(\s*\d+\s*,\s*0*(?P<shown>\d{1,9})\s*\)"
    rb"|(?P<span>TIME)\b(?:\s*%b)?|(?P<moment>DATETIME|TIMESTAMP)\b(?:\s*%b)?"
    rb"|(?P<day>DATE)\b|(?P<bits>BIT)\b|(?P<list>ENUM|SET)\s*\(|(?P<text>TINYTEXT|TEXT|MEDIUMTEXT)\b(?!\s*\()"
    rb"|(?:NATIONAL\s+|N)?(?:VARCHAR|CHAR(?:ACTER)?\s+VAR(?:YING|CHAR))\s*%b)"
    % (_SIZE % b"of_span", _SIZE % b"of_moment", _SIZE % b"characters"),
    _I,
)
_TEXT_BYTES = {b"TINYTEXT": (1 << 8) - 1, b"TEXT": (1 << 16) - 1, b"MEDIUMTEXT": (1 << 24) - 1}
_ANY_TEXT = rb"(?:_\w+\s*)?(?:%b)" % STRING
_NO_VALUE = rb"(?i:NULL|DEFAULT|TRUE|FALSE)\b"
_BITS = rb"0[xX][0-9A-Fa-f]+|0b[01]+|[bB]'[01]*'"
"""Numbers where a number is wanted."""
_NUMBER = rb"[-+]?[0-9]*(?:\.[0-9]{0,%d}0*)?"
_MOMENT = rb"'[0-9]{4}-[0-9]{2}-[0-9]{2}(?: [0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{0,%d}0*)?)?'"
_ANY_MOMENT = (
    rb"(?:[0-9]+(?:[-/][0-9]+){2}(?:[ T]+[0-9]+(?::[0-9]+){0,2})?|[0-9]{1,14}|[0-9]{6,8}T[0-9]{4,6})"
    rb"(?:\.[0-9]{0,%d}0*)?"
)
_SPAN = rb"[-+]?(?:[0-9]{1,3}(?::[0-9]{1,2}){1,2}|[0-9]{1,7})(?:\.[0-9]{0,%d}0*)?"
_DAY = rb"'[0-9-]{0,10}'"
_ANY_DAY = re.compile(
    rb"(?:[0-9]+(?:[-/.][0-9]+){2}(?:[ T]+[0:]*)?|[0-9]{1,8}|[0-9]{6}0{6}|[0-9]{8}0{6}|[0-9]{6,8}T0+)(?:\.0*)?"
)
_TEXT = re.compile(rb"(?:_\w+\s*)?(['\"])(.*)\1", re.DOTALL)
_ESCAPED = re.compile(rb"\\(.)|(''|\"\")", re.DOTALL)
_ESCAPES = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"0": b"\0", b"b": b"\b", b"Z": b"\x1a", b"%": b"\\%", b"_": b"\\_"}
_INDEX = re.compile(rb"\s*[-+]?[0-9]+\s*")
_ANY_STRING = re.compile(STRING, re.DOTALL)


def first_changed(text: bytes, at: int, columns: Sequence[Column]) -> Column | None:
    """The first column that would not keep its literal in some row from there on; None: all keep theirs."""
    types = tuple(b"" if column.is_computed or column.is_period else column.type for column in columns)
    exact = _rows_of(types)
    if exact is None:
        return None
    each = row_with((True,) * len(types))
    while at < len(text):
        if rows := exact.match(text, at):
            at = rows.end()
        elif row := each.match(text, at):
            for number, (column, type_) in enumerate(zip(columns, types, strict=True), 1):
                if not _keeps(type_, row[number]):
                    return column
            at = row.end()
        else:
            # Not as many values as columns: the server says so.
            break
    return None


@functools.lru_cache(maxsize=64)
def _rows_of(types: tuple[bytes, ...]) -> re.Pattern[bytes] | None:
    """Rows whose literals are kept at a glance; None: any are."""
    forms = [_form_of(type_) for type_ in types]
    if not any(forms):
        return None
    row = rb"\s*\(\s*%b\s*\)\s*(?:,|\Z)" % rb",\s*".join(form or LITERAL for form in forms)
    return re.compile(rb"(?:%b){1,%d}" % (row, ROWS_TOGETHER), re.DOTALL)


def _form_of(type_: bytes) -> bytes:
    """Literals that such a column keeps for sure; empty: any."""
    found = _TYPE.match(type_)
    if found is None:
        return b""
    decimals = _decimals(found)
    number = _NUMBER % decimals
    if found["characters"] or found["text"]:
        kept = rb"%b(?<! ['\"])|%b" % (_ANY_TEXT, _NUMBER % 99)
    elif found["list"]:
        kept = rb"(?!['\"][\s+-]*[0-9])(?:%b)|%b" % (STRING, _NUMBER % 99)
    elif found["bits"]:
        kept = rb"%b|[xX]'[0-9A-Fa-f]*'|%b|%b" % (_ANY_TEXT, _BITS, number)
    elif found["day"]:
        kept = _DAY
    elif found["moment"]:
        kept = _MOMENT % decimals
    elif found["span"]:
        kept = rb"'%b'" % (_SPAN % decimals)
    else:
        kept = rb"%b|'%b'|%b" % (number, number, _BITS)
    return rb"(?:%b|%b)" % (kept, _NO_VALUE)


def _decimals(found: re.Match[bytes]) -> int:
    return int(found["scale"] or found["shown"] or found["of_span"] or found["of_moment"] or 0)


def _keeps(type_: bytes, literal: bytes) -> bool:
    """Whether a column keeps all of a literal. What is no number is the server's to say."""
    found = _TYPE.match(type_)
    if found is None or re.fullmatch(_NO_VALUE, literal):
        return True
    if found["characters"] or found["text"]:
        most = int(found["characters"]) if found["characters"] else _TEXT_BYTES[found["text"].upper()]
        return _fits(literal, most)
    said, is_text = _said(literal)
    if found["list"]:
        values = [_said(value)[0].rstrip(b" ") for value in _ANY_STRING.findall(type_, found.end())]
        return not is_text or not _INDEX.fullmatch(said) or said.rstrip(b" ") in values
    if found["day"]:
        return _ANY_DAY.fullmatch(said) is not None
    if found["moment"] or found["span"]:
        return re.fullmatch((_SPAN if found["span"] else _ANY_MOMENT) % _decimals(found), said) is not None
    if (found["bits"] and is_text) or re.fullmatch(_BITS, literal):
        return True
    try:
        _, digits, exponent = decimal.Decimal(said.strip().decode("ascii", "replace")).as_tuple()
    except decimal.InvalidOperation:
        return True
    if not any(digits):
        return True
    zeros = len(digits) - len("".join(map(str, digits)).rstrip("0"))
    return not isinstance(exponent, int) or -exponent - zeros <= _decimals(found)


def _fits(literal: bytes, most: int) -> bool:
    """Whether no blanks at the end of a text are beyond so many characters; of others the server says it."""
    text = _TEXT.fullmatch(literal)
    said = text[2] if text else _said(literal)[0]
    if not said.endswith(b" "):
        return True
    # Unescaping is slow where a text has millions of escapes.
    return len((_ESCAPED.sub(b"x", said) if text else said).decode("utf-8", "replace")) <= most


def _said(literal: bytes) -> tuple[bytes, bool]:
    """What a literal says, and whether it is a text or the bytes of one."""
    if text := _TEXT.fullmatch(literal):
        return _ESCAPED.sub(lambda found: _unescaped(found, text[1]), text[2]), True
    if literal[:2] in (b"0x", b"0X", b"x'", b"X'"):
        digits = literal[2:].rstrip(b"'")
        return bytes.fromhex((b"0" * (len(digits) % 2) + digits).decode()), True
    if literal[:2] in (b"0b", b"b'", b"B'"):
        digits = literal[2:].rstrip(b"'")
        return int(digits or b"0", 2).to_bytes(-(-len(digits) // 8)), True
    return literal, False


def _unescaped(found: re.Match[bytes], quote: bytes) -> bytes:
    if found[2]:
        return quote if found[2][:1] == quote else found[2]
    return _ESCAPES.get(found[1], found[1])
