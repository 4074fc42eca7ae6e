"""The commands that follow a snapshot, as a server sends them to replicas, made fit to be executed at another time.

A replication stream holds more than data: messages are delivered when it is executed, and a Redis 6.2 says for how long
a key is to live from then on, not until when.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from agent.engines.redis.connection import encode
from common.errors import ToolFailedError

_OF_THEIR_TIME = frozenset(
    {
        # Messages: their subscribers got them.
        b"PUBLISH",
        b"SPUBLISH",
        # Scripts that clients hold (Redis 6.2): no part of the data, and SCRIPT FLUSH would drop those of today.
        b"SCRIPT",
        # What a server and its replicas say to each other.
        b"PING",
        b"REPLCONF",
    }
)
_SELECT = b"SELECT"
_NOTED = frozenset({_SELECT, b"SET", b"SETEX", b"PSETEX", b"GETEX", b"EXPIRE", b"PEXPIRE", b"RESTORE"})
"""The others than SELECT may say a time to live."""
_PLAIN_SET = b"*3\r\n$3\r\n"
"""SET with a key and a value alone, as it comes most."""
_HEAD = re.compile(rb"\*([1-9]\d{0,9})\r\n\$(\d{1,2})\r\n")
"""Of a command: how many words, and the length of the first, its name."""
_WORD = re.compile(rb"\$(\d{1,10})\r\n")
_HEAD_BYTES = 32
_NOTED_BYTES = 1 << 20
"""A longer key keeps its time as it was said."""


class Commands:
    """Passes a stream on while it arrives, without what was meant for its own time, and with moments for times to live.

    Values are not held in memory.

    Attributes:
        highest_database: the highest number that was selected.
    """

    def __init__(self) -> None:
        self.highest_database = 0
        self._held = b""
        self._words_left = 0
        self._bytes_left = 0
        """Of a word that has begun, its line end included."""
        self._is_dropped = False
        self._noted: list[bytes] = []
        """The words of a command that has to be seen to its end."""

    @property
    def is_cut(self) -> bool:
        """Whether what was passed on ends in the middle of a command."""
        return (self._words_left > 0 or self._bytes_left > 0) and not self._is_dropped

    def add(self, piece: bytes, *, at_ms: int) -> bytes:
        """The next bytes of the stream.

        Args:
            at_ms: when the server executed them, in milliseconds since 1970, by its own clock.
        Returns:
            What is to be executed later, as far as that is clear yet.
        Raises:
            ToolFailedError: it is no stream of commands.
        """
        data = self._held + piece
        kept = bytearray()
        start = position = 0
        while True:
            if self._bytes_left:
                taken = min(self._bytes_left, len(data) - position)
                if self._noted and len(self._noted[-1]) <= _NOTED_BYTES:
                    self._noted[-1] += data[position : position + taken]
                self._bytes_left -= taken
                position += taken
                if self._bytes_left:
                    break
            elif self._words_left:
                word = _match(_WORD, data, position)
                if word is None:
                    break
                self._words_left -= 1
                self._bytes_left = int(word[1]) + 2
                if self._noted:
                    self._noted.append(b"")
                position = word.end()
            else:
                if self._noted:
                    kept += data[start:position] + self._finish(at_ms)
                    start = position
                elif self._is_dropped:
                    self._is_dropped = False
                    start = position
                head = _match(_HEAD, data, position)
                end = head.end() + int(head[2]) + 2 if head else 0
                if head is None or end > len(data):
                    break
                name = data[head.end() : end - 2].upper()
                if name in _OF_THEIR_TIME:
                    kept += data[start:position]
                    self._is_dropped = True
                elif name in _NOTED and head[0] != _PLAIN_SET:
                    self._noted = [data[head.end() : end]]
                self._words_left = int(head[1]) - 1
                position = end
        self._held = data[position:]
        if not self._is_dropped:
            kept += data[start:position]
        return bytes(kept)

    def _finish(self, at_ms: int) -> bytes:
        """A command was noted to its end; what has to follow it."""
        name, *words = (word[:-2] for word in self._noted)
        self._noted = []
        if name.upper() == _SELECT:
            self.highest_database = max(self.highest_database, int(words[0]))
            return b""
        return _until(name.upper(), words, at_ms)


def _match(pattern: re.Pattern[bytes], data: bytes, position: int) -> re.Match[bytes] | None:
    """What begins here; None: it is not all there yet."""
    found = pattern.match(data, position)
    if found is None and len(data) - position >= _HEAD_BYTES:
        raise ToolFailedError("The server does not replicate as Redis does.")
    return found


def _until(name: bytes, words: Sequence[bytes], at_ms: int) -> bytes:
    """What sets the moment for a key whose time to live a command has just set; empty for any other command."""
    key = words[0]
    lifetime_ms = _lifetime_ms(name, words[1:])
    if lifetime_ms is None or len(key) > _NOTED_BYTES:
        return b""
    return encode("PEXPIREAT", key, at_ms + lifetime_ms)


def _lifetime_ms(name: bytes, words: Sequence[bytes]) -> int | None:
    """
    Args:
        words: what follows the key.
    """
    upper = [word.upper() for word in words]
    match name:
        case b"EXPIRE" | b"SETEX":
            return int(words[0]) * 1000
        case b"PEXPIRE" | b"PSETEX":
            return int(words[0])
        case b"RESTORE":
            return int(words[0]) or None if b"ABSTTL" not in upper[2:] else None
    options = upper[1:] if name == b"SET" else upper
    for option, value in pairwise(options):
        if option in (b"EX", b"PX"):
            return int(value) * (1000 if option == b"EX" else 1)
    return None
