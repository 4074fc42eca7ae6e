"""Bytes of a file in order, from a pipe, with the checksum of what was read: the bottom of the walk.

`buffer` and `position` are open on purpose: the walk's inner loop reads them itself, since a call costs more than the
work that it does for a small key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from common.errors import ArchiveDamagedError, ArchiveTruncatedError, LimitExceededError
from common.rdb import CRC_BYTES, crc64

PIECE_BYTES = 1 << 20
MOST_IN_MEMORY_BYTES = 64 << 20
"""Largest key, or packed value, that is looked into; servers pack a few KiB as a rule."""
IN_SMALLER_PIECES = (
    "Have it lie in smaller pieces where the file comes from, then export again. Of a hash, set or sorted set: lower "
    "`hash-`, `set-` or `zset-max-listpack-value`, then add one member that is longer. Of a stream: lower "
    "`stream-node-max-bytes` and write its entries into a new one. A long text is one such piece only where the server "
    "compresses it (`rdbcompression yes`)."
)
ENCODED_LZF = 0xC3
INTEGER_BYTES = {0xC0: 1, 0xC1: 2, 0xC2: 4}
"""By the byte that stands for a length: a string that is an integer."""


class Rest(NamedTuple):
    """What came from some place to the end of the file.

    Attributes:
        head: its first bytes.
        crc: the checksum of the whole file but for its last eight bytes; `last` is what those say.
    """

    size_bytes: int
    head: bytes
    crc: int
    last: int


class Source:
    """What was read so far is before `position`; `buffer` is replaced when more is needed."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        """
        Args:
            read: at most so many bytes, none at the end.
        """
        self.buffer = b""
        self.position = 0
        self._read = read
        self._base = 0
        self._crc = 0

    @property
    def offset(self) -> int:
        """Bytes from the beginning of the file."""
        return self._base + self.position

    def crc(self) -> int:
        """The checksum of everything before `offset`."""
        self._drop()
        return self._crc

    def fill(self, size: int) -> None:
        """Have at least `size` bytes from `position` on in the buffer; afterwards `position` is 0.

        Raises:
            ArchiveTruncatedError: the file ends before.
        """
        self._drop()
        pieces = [self.buffer]
        have = len(self.buffer)
        while have < size:
            piece = self._read(PIECE_BYTES)
            if not piece:
                self.buffer = b"".join(pieces)
                raise ArchiveTruncatedError(
                    f"The file is cut off at byte {self._base + have}.", next_step="Send the whole file."
                )
            pieces.append(piece)
            have += len(piece)
        self.buffer = b"".join(pieces)

    def _drop(self) -> None:
        if self.position:
            self._crc = crc64(memoryview(self.buffer)[: self.position], self._crc)
            self._base += self.position
            self.buffer = self.buffer[self.position :]
            self.position = 0

    def byte(self) -> int:
        """The next byte."""
        if self.position >= len(self.buffer):
            self.fill(1)
        self.position += 1
        return self.buffer[self.position - 1]

    def take(self, size: int) -> bytes:
        """The next bytes.

        Raises:
            LimitExceededError: more than MOST_IN_MEMORY_BYTES.
        """
        if size > len(self.buffer) - self.position:
            if size > MOST_IN_MEMORY_BYTES:
                raise LimitExceededError(
                    f"A key or packed value at byte {self.offset} has {size} bytes; more than "
                    f"{MOST_IN_MEMORY_BYTES >> 20} MiB cannot be checked.",
                    next_step=IN_SMALLER_PIECES,
                )
            self.fill(size)
        self.position += size
        return self.buffer[self.position - size : self.position]

    def skip(self, size: int) -> None:
        """Leave bytes out, any number of them."""
        while size > len(self.buffer) - self.position:
            size -= len(self.buffer) - self.position
            self.position = len(self.buffer)
            self.fill(1)
        self.position += size

    def pieces(self, size: int) -> Iterator[bytes]:
        """The next bytes, any number of them, as they lie in the buffer."""
        while size > len(self.buffer) - self.position:
            piece = self.buffer[self.position :]
            size -= len(piece)
            self.position = len(self.buffer)
            yield piece
            self.fill(1)
        self.position += size
        yield self.buffer[self.position - size : self.position]

    def length(self) -> int:
        """A number as lengths are written."""
        first = self.byte()
        if first < 0x40:
            return first
        if first < 0x80:
            return (first & 0x3F) << 8 | self.byte()
        if first == 0x80:
            return int.from_bytes(self.take(4))
        if first == 0x81:
            return int.from_bytes(self.take(8))
        raise self.damaged("a length is not written as one")

    def damaged(self, what: str) -> ArchiveDamagedError:
        """The error for something that no server writes, with its place."""
        return ArchiveDamagedError(
            f"The file is damaged, or was made to do harm: {what}, before byte {self.offset}.",
            next_step="Take another copy of the file, or export again.",
        )

    def drain(self) -> Rest:
        """Read to the end of the file."""
        head = b""
        size = 0
        while True:
            head = head or self.buffer[self.position : self.position + 64]
            held_back = min(CRC_BYTES, len(self.buffer) - self.position)
            size += len(self.buffer) - self.position - held_back
            self.position = len(self.buffer) - held_back
            try:
                self.fill(CRC_BYTES + 1)
            except ArchiveTruncatedError:
                break
        return Rest(
            size_bytes=size + len(self.buffer),
            head=head,
            crc=self._crc,
            last=int.from_bytes(self.buffer, "little"),
        )
