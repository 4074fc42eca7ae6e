"""Most of the server's memory that working out a formula takes: a default, a generated column, a check of a table.

A server keeps what each call on the way gives, see `row_memory`, and so it does with what it brings into the character
set of something else: `latin1_column = utf8_column` keeps the longer of both, each time that it is written (seen with
MariaDB 10.11).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from agent.engines.mariadb.dumps.columns import plain
from agent.engines.mariadb.dumps.inserts import STRING

FEW_BYTES = 96
"""A number, a date, a hash: whatever does not grow."""
PART = re.compile(
    rb"(?P<string>(?:_\w+\s*)?(?:%b))|(?P<name>`[^`]*`(?:`[^`]*`)*|[A-Za-z_$\x80-\xff][\w$\x80-\xff]*)"
    rb"|(?P<number>[0-9][\w.]*)|(?P<mark>[(),]|->)" % STRING,
    re.DOTALL,
)
NUMBER = re.compile(rb"0*([0-9]{1,9})")
"""One that can be a length; what has more digits that count is more than any."""
_PLAIN = re.compile(rb"'[^'\\]*'")
_SHORT_OF = frozenset(
    b"ABS ACOS ADDDATE ADDTIME ASCII ASIN ATAN ATAN2 BIN BIN_TO_UUID BIT_COUNT BIT_LENGTH CEIL CEILING "
    b"CHARACTER_LENGTH CHAR_LENGTH CONV CONVERT_TZ COS COT CRC32 CRC32C CURDATE CURRENT_DATE CURRENT_ROLE "
    b"CURRENT_TIME CURRENT_TIMESTAMP CURRENT_USER CURTIME DATABASE DATE DATEDIFF DATE_ADD DATE_SUB DAY DAYNAME "
    b"DAYOFMONTH DAYOFWEEK DAYOFYEAR DEGREES EXP EXTRACT FIELD FIND_IN_SET FLOOR FROM_DAYS HOUR INET6_ATON "
    b"INET6_NTOA INET_ATON INET_NTOA INSTR ISNULL IS_IPV4 IS_IPV6 IS_UUID JSON_CONTAINS JSON_CONTAINS_PATH "
    b"JSON_DEPTH JSON_EXISTS JSON_LENGTH JSON_OVERLAPS JSON_TYPE JSON_VALID LASTVAL LAST_DAY LENGTH LENGTHB LN "
    b"LOCALTIME LOCALTIMESTAMP LOCATE LOG LOG10 LOG2 MAKEDATE MAKETIME MD5 MICROSECOND MINUTE MOD MONTH MONTHNAME "
    b"NEXTVAL NOW OCT OCTET_LENGTH ORD PERIOD_ADD PERIOD_DIFF PI POINT POSITION POW POWER QUARTER RADIANS RAND "
    b"REGEXP_INSTR REGEXP_LIKE ROUND SCHEMA SECOND SEC_TO_TIME SHA SHA1 SHA2 SIGN SIN SQRT STRCMP STR_TO_DATE "
    b"ST_DISTANCE ST_X ST_Y SUBDATE SUBTIME SYSDATE SYS_GUID TAN TIME TIMEDIFF TIMESTAMP TIMESTAMPADD "
    b"TIMESTAMPDIFF TIME_TO_SEC TO_DAYS TO_SECONDS TRUNCATE UNIX_TIMESTAMP USER UTC_DATE UTC_TIME UTC_TIMESTAMP "
    b"UUID UUID_SHORT UUID_TO_BIN UUID_V4 UUID_V7 VERSION WEEK WEEKDAY WEEKOFYEAR YEAR YEARWEEK".split()
)
_NO_CALL = frozenset(
    b" AND AS BETWEEN BIGINT BIT BOOL CASE CHARACTER CHECK DATETIME DEC DECIMAL DEFAULT DIV DOUBLE ELSE FIXED "
    b"FLOAT IN INDEX INT INTEGER IS KEY LIKE MEDIUMINT NCHAR NOT NUMERIC NVARCHAR OR REAL REGEXP RLIKE SIGNED "
    b"SMALLINT THEN TINYINT UNSIGNED VARBINARY VARCHAR VARYING WHEN XOR".split()
)
"""Words before a bracket that call nothing."""
_JOINED_OF = frozenset(
    b"AES_DECRYPT AES_ENCRYPT CAST CHAR COALESCE CONCAT CONVERT ELT FROM_BASE64 GREATEST IF IFNULL INSERT "
    b"JSON_COMPACT JSON_QUERY JSON_UNQUOTE JSON_VALUE LCASE LEAST LEFT LOWER LTRIM MAKE_SET MID NULLIF NVL NVL2 "
    b"REGEXP_SUBSTR REVERSE RIGHT RTRIM SUBSTR SUBSTRING SUBSTRING_INDEX TRIM UCASE UNHEX UPPER".split()
)
"""Not longer than what goes into them together."""
_ESCAPED_OF = frozenset(b"DATE_FORMAT FORMAT HEX JSON_ARRAY JSON_OBJECT JSON_QUOTE QUOTE TIME_FORMAT TO_BASE64".split())
_ESCAPED = 12
"""At most so many times as long: a character as `\\u0000`, which may take two bytes each, a month's name for `%M`."""
_CONVERTED = 4
"""At most so many times as long in another character set."""
_NUMBERED_OF = {b"REPEAT": 1, b"LPAD": 1, b"RPAD": 1, b"SPACE": 0, b"BINARY": 0}
"""As long as a number says, which is this one of what goes into them."""


@dataclass
class _Call:
    """A bracket that is still open.

    Attributes:
        parts: of each that is complete its most bytes and, where it is one number or string, that.
        meeting: how many things in it may have a character set that another has to be brought into. A literal has none.
    """

    name: bytes
    parts: list[tuple[int, bytes]] = field(default_factory=list)
    meeting: int = 0
    size_bytes: int = 0
    words: list[bytes] = field(default_factory=list)

    def add(self, size_bytes: int, word: bytes = b"") -> None:
        self.size_bytes += size_bytes
        self.words.append(word)

    def end_part(self) -> None:
        self.parts.append((self.size_bytes, self.words[0] if len(self.words) == 1 else b""))
        self.size_bytes, self.words = 0, []

    @property
    def is_function(self) -> bool:
        return bool(self.name) and self.name not in _NO_CALL

    @property
    def converted_bytes(self) -> int:
        """Once complete: most bytes of what is in it, brought into another character set."""
        return _CONVERTED * sum(size_bytes for size_bytes, _ in self.parts) if self.meeting > 1 else 0


def kept_bytes(formula: bytes, of_name: Callable[[bytes], int], *, most_bytes: int, stored_bytes: int) -> int:
    """Most bytes that the server keeps to work out a formula: of what each call gives, and of what is stored.

    Args:
        of_name: most bytes of what has this name; asked for any name.
        most_bytes: of any value.
        stored_bytes: most of what comes of it that is stored.
    """
    kept, open_calls, name = 0, [_Call(b"")], b""

    def close() -> None:
        nonlocal kept
        call = open_calls.pop()
        call.end_part()
        size_bytes = min(_given_by(call, most_bytes), most_bytes)
        kept += call.converted_bytes + (size_bytes if call.is_function else 0)
        open_calls[-1].add(size_bytes)
        open_calls[-1].meeting += call.name not in _SHORT_OF if call.is_function else call.meeting > 0

    def add_name() -> None:
        size_bytes = of_name(name)
        open_calls[-1].add(size_bytes)
        open_calls[-1].meeting += size_bytes > FEW_BYTES or name.upper() == b"COLLATE"

    for part in PART.finditer(formula):
        mark = part["mark"]
        if name and mark != b"(":
            add_name()
        if mark == b"(":
            open_calls.append(_Call(plain(name).upper()))
        elif mark == b")" and len(open_calls) > 1:
            close()
        elif mark == b",":
            open_calls[-1].end_part()
        elif mark == b"->":
            # To any number of places.
            kept += most_bytes
            open_calls[-1].add(most_bytes)
        elif not mark and not part["name"]:
            open_calls[-1].add(len(part[0]) - 2 * bool(part["string"]), part[0])
        name = part["name"] or b""
    if name:
        add_name()
    while len(open_calls) > 1:
        close()
    [whole] = open_calls
    whole.end_part()
    return kept + whole.converted_bytes + min(sum(size for size, _ in whole.parts), stored_bytes)


def _given_by(call: _Call, most_bytes: int) -> int:
    """Most bytes of what a call gives."""
    sizes = [size_bytes for size_bytes, _ in call.parts]
    words = [word for _, word in call.parts]
    if call.name in _SHORT_OF:
        return FEW_BYTES
    if not call.name or call.name in _NO_CALL or call.name in _JOINED_OF:
        return FEW_BYTES + sum(sizes)
    if call.name in _ESCAPED_OF:
        return FEW_BYTES + _ESCAPED * sum(sizes)
    if call.name == b"CONCAT_WS":
        return len(sizes) * max(sizes)
    if call.name == b"JSON_EXTRACT" and all(word and b"*" not in word for word in words[1:]):
        return max(1, len(sizes) - 1) * (sizes[0] + FEW_BYTES)
    if (
        call.name == b"REPLACE"
        and len(words) == 3
        and _PLAIN.fullmatch(words[1])
        and 0 < len(words[2]) <= len(words[1])
    ):
        return sizes[0]
    at = _NUMBERED_OF.get(call.name, len(words))
    if at < len(words) and (number := NUMBER.fullmatch(words[at])):
        return int(number[1]) * (sizes[0] if call.name == b"REPEAT" else 4)
    return most_bytes
