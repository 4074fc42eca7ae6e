"""Which literals a column keeps as they are written: those with no more decimals than it has.

The one fact to know: what a server cuts off it only notes, whatever its sql_mode, or does not even that (seen with
MariaDB 10.11: nothing is said of 1.7 in an INT, of .999 in a DATETIME, of 1.23456 in a FLOAT(7,3)). So it is with
blanks at the end of a VARCHAR.
"""

from __future__ import annotations

import decimal
import functools
import re
from collections.abc import Sequence

from agent.engines.mariadb.columns import Column
from agent.engines.mariadb.inserts import LITERAL, ROWS_TOGETHER, STRING, row_with

_I = re.IGNORECASE
_TYPE = re.compile(
    rb"\s*(?:(?P<whole>(?:TINY|SMALL|MEDIUM|BIG)?INT|INTEGER|BOOL|BOOLEAN|SERIAL|YEAR)\b"
    rb"|(?P<exact>DECIMAL|NUMERIC|DEC|FIXED)\b(?:\s*\(\s*\d+\s*(?:,\s*(?P<scale>\d+)\s*)?\))?"
    rb"|(?:FLOAT|DOUBLE(?:\s+PRECISION)?|REAL)\s*\(\s*\d+\s*,\s*(?P<shown>\d+)\s*\)"
    rb"|(?P<moment>TIME|DATETIME|TIMESTAMP)\b(?:\s*\(\s*(?P<fraction>\d+)\s*\))?"
    rb"|(?P<day>DATE)\b|(?P<bits>BIT)\b|VARCHAR\s*\(\s*(?P<characters>\d+)\s*\))",
    _I,
)
_ANY_TEXT = rb"(?:_\w+\s*)?(?:%b)" % STRING
_OTHER = rb"(?i:NULL|DEFAULT|TRUE|FALSE)\b|0[xX][0-9A-Fa-f]+|[xXbB]'[0-9A-Fa-f]*'"
_NUMBER = rb"[-+]?[0-9]*(?:\.[0-9]{0,%d}0*)?"
_MOMENT = rb"'[^'.\\]*(?:\.[0-9]{0,%d}0*)?'"
_DAY = rb"'[0-9-]{0,10}'"
_TEXT = re.compile(rb"(?:_\w+\s*)?(['\"])(.*)\1", re.DOTALL)
_ESCAPED = re.compile(rb"\\.|''|\"\"", re.DOTALL)
_FRACTION = re.compile(rb"(?::[0-9]+|^[0-9]{6,14})\.([0-9]+)")
_TIME_OF_DAY = re.compile(rb"[ T](.*)|^[0-9]{8}([0-9]{6})(?:\.|$)|^[0-9]{6}([0-9]{6})(?:\.|$)", re.DOTALL)


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
    number = _NUMBER % _decimals(found)
    if found["characters"]:
        kept = rb"%b(?<! ['\"])|%b" % (_ANY_TEXT, _NUMBER % 99)
    elif found["bits"]:
        kept = rb"%b|%b" % (_ANY_TEXT, number)
    elif found["day"]:
        kept = _DAY
    elif found["moment"]:
        kept = rb"%b|%b" % (_MOMENT % _decimals(found), number)
    else:
        kept = rb"%b|'%b'" % (number, number)
    return rb"(?:%b|%b)" % (kept, _OTHER)


def _decimals(found: re.Match[bytes]) -> int:
    return int(found["scale"] or found["shown"] or found["fraction"] or 0)


def _keeps(type_: bytes, literal: bytes) -> bool:
    """Whether a column keeps all of a literal. What is no number or moment is the server's to say."""
    found, text = _TYPE.match(type_), _TEXT.fullmatch(literal)
    if found is None or (found["bits"] and text):
        return True
    said = text[2] if text else literal
    if found["characters"]:
        size = len(_ESCAPED.sub(b"x", said).decode("utf-8", "replace"))
        return not said.endswith(b" ") or size <= int(found["characters"])
    if found["day"]:
        rest = _TIME_OF_DAY.search(said)
        return rest is None or not b"".join(part or b"" for part in rest.groups()).strip(b"0:. ")
    if found["moment"]:
        fraction = _FRACTION.search(said)
        return fraction is None or not fraction[1][_decimals(found) :].strip(b"0")
    try:
        _, digits, exponent = decimal.Decimal(said.strip().decode("ascii", "replace")).as_tuple()
    except decimal.InvalidOperation:
        return True
    if not any(digits):
        return True
    zeros = len(digits) - len("".join(map(str, digits)).rstrip("0"))
    return not isinstance(exponent, int) or -exponent - zeros <= _decimals(found)
