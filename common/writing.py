"""Bytes written to a descriptor, all of them, however little the system takes at once."""

from __future__ import annotations

import os


def write_all(descriptor: int, content: bytes | memoryview) -> None:
    """Where the descriptor is."""
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]


def write_all_at(descriptor: int, content: bytes | memoryview, offset: int) -> None:
    """From a place in a file on."""
    left = memoryview(content)
    while left:
        written = os.pwrite(descriptor, left, offset)
        left, offset = left[written:], offset + written
