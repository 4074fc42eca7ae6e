"""Tokens of SQL text as psql's lexer cuts them (src/fe_utils/psqlscan.l), for `sqltext` to search with.

No possessive repetition or atomic group: CPython 3.11.0 to 3.11.4 match those wrongly (gh-106052). Instead each token
can end at one place only, so that giving back finds nothing new, and repetitions have a limit, so that what could be
given back is little: no input makes a search slow or large.
"""

from __future__ import annotations

import re

MOST_INSERTS = 500
"""How many INSERT statements may be found as one."""
_MOST_TOKENS = 1000
"""How many are found at once, here and within one pair of parentheses; each holds some 230 bytes meanwhile."""


def _all(characters: bytes) -> bytes:
    """As many as there are of a class."""
    return rb"%b+(?!%b)" % (characters, characters)


_PUNCTUATION = rb"%b|-(?!-)|/(?!\*)|\$%b|\"[^\"]*\"" % (_all(rb"[^'\"$\\;()\-/A-Za-z_\x80-\xff]"), _all(rb"[0-9]"))
_WORD = rb"[A-Za-z_\x80-\xff][\w$\x80-\xff]*(?![\w$\x80-\xff])"
_ANY_WORD = rb"(?![eE]')" + _WORD
_OTHER_WORD = rb"(?!(?i:begin|case|end)(?![\w$\x80-\xff]))" + _ANY_WORD
_ESCAPED_STRING = rb"'(?:%b|\\[\s\S]|''){0,%d}'(?=\s*(?:[^'\s\-]|-[^\-]))" % (_all(rb"[^'\\]"), _MOST_TOKENS)
"""Only where it is clear that it does not go on after a line break, or after a comment and one."""
_STRINGS = {True: rb"'[^']*'|[eE]" + _ESCAPED_STRING, False: rb"[eE]?" + _ESCAPED_STRING}
"""By standard_conforming_strings: without it, each string may hold escapes."""


def _some(*tokens: bytes) -> bytes:
    return rb"(?:%b){0,%d}" % (b"|".join(tokens), _MOST_TOKENS)


def _run(*tokens: bytes) -> re.Pattern[bytes]:
    return re.compile(_some(*tokens, rb"\(%b\)" % _some(*tokens)))


BEFORE_WORD = re.compile(_some(_PUNCTUATION))
RUN = {standard: _run(_PUNCTUATION, _ANY_WORD, strings) for standard, strings in _STRINGS.items()}
RUN_IN_FUNCTION = {standard: _run(_PUNCTUATION, _OTHER_WORD, strings) for standard, strings in _STRINGS.items()}
INSERTS = {
    standard: re.compile(rb"%b(?:;\s*%b){0,%d}" % (insert, insert, MOST_INSERTS))
    for standard, run in RUN.items()
    for insert in (rb"INSERT INTO %b(?=;)" % run.pattern,)
}
FIRST_WORDS: dict[tuple[int, bytes], int] = {
    (0, b"create"): 1,
    (1, b"or"): 2,
    (2, b"replace"): 3,
    **{(state, word): 5 for state in (1, 3) for word in (b"function", b"procedure")},
}
NO_FUNCTION, FUNCTION = 4, 5
NEWLINE, QUOTE, DASH = b"\n'-"
WORD_TOKEN = re.compile(_WORD)
WORD_BYTES = bytes(c for c in range(256) if c >= 0x80 or chr(c).isalnum() or c in b"_$-/")
ATOMIC = re.compile(rb"[ \t\r\n\f\v]+atomic(?=[^\w$\x80-\xff])", re.IGNORECASE)
ATOMIC_BEGUN = re.compile(rb"[ \t\r\n\f\v]*(?:|a|at|ato|atom|atomi|atomic)\Z", re.IGNORECASE)
SPACE = re.compile(rb"[ \t\r\n\f\v]*")
END_OF_LINE = re.compile(rb"[\r\n]")
"""Either alone ends a line for the server, and with it a comment."""
SPACE_BUT_NEWLINE = re.compile(rb"[ \t\r]*")
SPACE_OR_EMPTY = re.compile(rb"[ \t\r\n\f\v;]*")
DOLLAR_TAG = re.compile(rb"\$(?:[A-Za-z_\x80-\xff][0-9A-Za-z_\x80-\xff]*)?\$")
DOLLAR_TAG_BEGUN = re.compile(rb"\$[0-9A-Za-z_\x80-\xff]*\Z")
ESCAPED = re.compile(_some(_all(rb"[^'\\]"), rb"\\[\s\S]"))
IDENTIFIER = rb'(?:"[^"]*(?:""[^"]*)*"(?!")|%b)' % _WORD
"""A name, quoted or not; for a part of a pattern."""
COMMENT_MARK = re.compile(rb"/\*|\*/")
COPY_FROM_STDIN = re.compile(rb"COPY\b.*\bFROM\s+STDIN\b", re.DOTALL | re.IGNORECASE)
END_OF_ROWS = re.compile(rb"\\\.\r?\n")
STRINGS_SETTING = re.compile(
    rb"SET\s+(?:SESSION\s+)?standard_conforming_strings\s*(?:=|\bTO\b)\s*'?(\w+)", re.IGNORECASE
)
RESTRICT = re.compile(rb"\\(un)?restrict ([A-Za-z0-9]+)\s*\Z")
CONNECT = re.compile(rb"\\c(?:onnect)?(?:\s|\Z)")
