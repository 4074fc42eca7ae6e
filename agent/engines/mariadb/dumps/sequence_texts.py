"""Sequences as a dump writes them: each made, then set to its next number. They come before all tables."""

from __future__ import annotations

import hashlib
import re

_NAME = rb"`(?:[^`]|``)*`"
_MADE = re.compile(rb"CREATE SEQUENCE (%b) .*?start with (-?\d+) .*?increment by (-?\d+)\b" % _NAME)
_SET = re.compile(rb"(?:DO|SELECT) SETVAL\((%b), (-?\d+), 0\)" % _NAME)
_BOTH = re.compile(
    rb"^CREATE SEQUENCE (?P<name>%b) (?P<how>.*);\n(?:(?:DO|SELECT) SETVAL\((?P=name), (?P<next>.*)\);$)?" % _NAME,
    re.MULTILINE,
)
_AFTER = re.compile(rb"^-- (?:Table|Temporary|Dumping|Final) ", re.MULTILINE)
"""What a dump writes of first when all its sequences are in it."""
_LONGEST_BEGINNING = 32


class SequenceHasher:
    """What a fingerprint says of each sequence, from a dump's text."""

    def __init__(self) -> None:
        self._text = bytearray()
        self._is_over = False

    def add(self, piece: bytes) -> None:
        """The next piece of the dump."""
        if self._is_over:
            return
        known = max(0, len(self._text) - _LONGEST_BEGINNING)
        self._text += piece
        if found := _AFTER.search(self._text, known):
            del self._text[found.start() :]
            self._is_over = True

    @property
    def parts(self) -> dict[str, str]:
        """Of all that was added: the next number, and a SHA-256 of how it counts."""
        return {
            f"sequence {found['name'][1:-1].decode(errors='replace')}": (
                f"next {(found['next'] or b'unknown').partition(b',')[0].decode()}, "
                f"{hashlib.sha256(found['how']).hexdigest()}"
            )
            for found in _BOTH.finditer(bytes(self._text))
        }


class SequencePositions:
    """Statements of a dump such that each sequence gets the number that the dump says.

    The one fact to know: SETVAL only goes the way that the sequence counts. One whose next number lies before its
    start, after an ALTER SEQUENCE … RESTART, would stay at its start.
    """

    def __init__(self) -> None:
        self._made = b""
        self._start = 0
        self._increment = 0

    def corrected(self, statement: bytes) -> bytes:
        """The statement, or what does instead."""
        if made := _MADE.match(statement):
            self._made, self._start, self._increment = made[1], int(made[2]), int(made[3])
            return statement
        found = _SET.fullmatch(statement)
        if found is None or found[1] != self._made or (int(found[2]) - self._start) * self._increment >= 0:
            return statement
        return b"ALTER SEQUENCE %b RESTART %b" % (found[1], found[2])
