"""Files that are read forwards, a piece at a time, to their very end."""

from __future__ import annotations

from typing import Protocol

PIECE_BYTES = 1 << 18


class Reader(Protocol):
    """The reading half of a file."""

    def read(self, size: int, /) -> bytes: ...


class GoesOnError(Exception):
    """Behind the end of compressed data there is something else.

    Attributes:
        end: the byte at which it begins.
    """

    def __init__(self, end: int) -> None:
        super().__init__(end)
        self.end = end


def require_padding(beginning: bytes, rest: Reader, *, end: int) -> None:
    """Read to the end, where zero bytes may stand behind the data, as `dd` and tapes leave them and gzip passes over.

    Args:
        beginning: what of it was read already.
        end: the byte at which the data has ended.
    Raises:
        GoesOnError: there is something else.
    """
    piece = beginning
    while piece or (piece := rest.read(PIECE_BYTES)):
        if any(piece):
            raise GoesOnError(end)
        piece = b""
