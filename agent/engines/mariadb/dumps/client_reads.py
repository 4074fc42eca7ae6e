"""What the client programs would read otherwise than the server in a text that is sent through them.

They look for the end of a statement, so they know strings and comments, and nothing switches that off: with
--binary-mode they still carry out `\\C charset` wherever it is in neither, and DELIMITER. The facts to know, of MySQL
8.0, 8.4 and 9.7 and of MariaDB 10.11 and 11.8 (client/mysql.cc, add_line): `/*!` and `/*+` are code for them, whichever
server takes them for comments, `/*+` until the end of its line alone, and a star behind that begins a comment; a
comment in a comment hides its end; `$$` begins a string for those of MySQL 9; a line that begins with `delimiter` loses
its end (behind a blank or anything else the word is as any other, within a statement), and one with a backslash before
a zero byte what comes behind it; after a comment comes a blank, if need be behind a letter of several bytes. So a text
is sent if each of them reads it as the server does and passes it on.
"""

from __future__ import annotations

import re

DELIMITER_LINE = re.compile(rb"^delimiter", re.IGNORECASE | re.MULTILINE)
"""Also within strings, since one may end in that line."""
DOLLAR = re.compile(rb"(?<![A-Za-z0-9_])\$")
"""What may begin a string, outside of others."""
LOST = re.compile(rb"\\[\0\n]")
"""A backslash that does not arrive, nor what stands behind a zero byte in its line."""
_CONTROL = rb"\x00-\x08\x0b\x0c\x0e-\x1f\x7f"
_PLAIN = re.compile(
    # Words, numbers and signs; a minus, but none before which somebody may see a comment; comments up to the end of
    # the line.
    rb"[^'\"`\\#$/\-%b]+|(?<=[A-Za-z0-9_])\$|/(?!\*)|-(?!-(?:[\x00-\x20\x7f-\xff]|\Z))"
    rb"|#[^\n\0]*|--(?:[ \t\r][^\n\0]*)?(?=\n|\Z)" % _CONTROL
)
_COMMENT_OF_CODE = re.compile(rb"/\*(?:M?!|\+)")
_MAX_CODE_BYTES = 2000
_CODE = re.compile(
    # It ends no statement, not even on servers that will carry it out.
    rb"(?:[^'\"`\\#$;\-%b]|'[^'\\\n\0]*'|\"[^\"\\\n\0]*\"|`[^`\\\n\0]*`|-(?!-))*" % _CONTROL
)
_QUOTE_OR_ESCAPE = {quote: re.compile(rb"[\\%b]" % quote) for quote in (b"'", b'"')}
_WHAT = {
    b"\\": "a backslash outside of strings",
    b"$": "a word that begins with $",
    b"/": "a comment that has code, another comment or, right behind it, a letter",
    b"-": "-- before something else than a blank",
    b"#": "a comment with a control character",
    b"'": "a string without an end, or with a backslash before the end of a line",
    b'"': "a string without an end, or with a backslash before the end of a line",
    b"`": "a name without an end, or with a backslash before the end of a line",
}


class ReadOtherwiseError(Exception):
    """A text that a client program may not pass on as it is; it says why, for a sentence that begins with a name."""


def require_as_it_is(text: bytes, sql_mode: str = "") -> bytes:
    """What arrives: the text, with a blank after each comment. ReadOtherwiseError where it may come to a server as
    another.

    Args:
        text: a statement, which begins with none of the client's commands, in a character set in which bytes of ASCII
            are no part of others.
        sql_mode: the session's; none with ANSI_QUOTES.
    """
    if DELIMITER_LINE.search(text):
        raise ReadOtherwiseError(
            "has the word DELIMITER at the beginning of a line, which MySQL's client program takes for a command of "
            "its own"
        )
    has_escapes = "NO_BACKSLASH_ESCAPES" not in sql_mode
    at, arriving = 0, bytearray()
    while at < len(text):
        end = _end_of_part(text, at, has_escapes=has_escapes)
        if end < 0:
            what = _WHAT.get(text[at : at + 1], "a control character")
            line = text.count(b"\n", 0, at) + 1
            raise ReadOtherwiseError(
                f"has {what} in its line {line}, which MySQL's client program may read otherwise than its server"
            )
        arriving += text[at:end]
        if text.startswith(b"/*", at) and text[end : end + 1].strip():
            arriving += b" "
        at = end
    return bytes(arriving)


def _end_of_part(text: bytes, at: int, *, has_escapes: bool) -> int:
    """Where a string, comment or what is between them ends that begins there; -1: it is read in several ways."""
    if found := _PLAIN.match(text, at):
        return found.end()
    match text[at : at + 1]:
        case b"/":
            return _end_of_comment(text, at)
        case b"'" | b'"' as quote if has_escapes:
            return _end_of_string(text, at + 1, quote)
        case b"'" | b'"' | b"`" as quote:
            end = text.find(quote, at + 1) + 1
            return -1 if not end or LOST.search(text, at, end) else end
    return -1


def _end_of_string(text: bytes, at: int, quote: bytes) -> int:
    while found := _QUOTE_OR_ESCAPE[quote].search(text, at):
        if found[0] == quote:
            return found.end()
        if LOST.match(text, found.start()):
            break
        at = found.end() + 1
    return -1


def _end_of_comment(text: bytes, at: int) -> int:
    opening = _COMMENT_OF_CODE.match(text, at)
    begin = opening.end() if opening else at + 2
    end = text.find(b"*/", begin)
    inside, behind = text[begin:end], text[end + 2 : end + 3]
    # `/*/`, too: the end as the server sees it is the beginning of another.
    if end < 0 or b"/*" in text[begin : end + 1] or b"\0" in inside or behind >= b"\x80":
        return -1
    if opening and (behind == b"*" or len(inside) > _MAX_CODE_BYTES or not _CODE.fullmatch(inside)):
        return -1
    return end + 2
