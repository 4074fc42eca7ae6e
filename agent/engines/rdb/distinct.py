"""Whether anything stands twice among any number of things, with little memory: their hashes, sorted into buckets.

Hashes are Python's own for bytes: SipHash with a key that is new in each process, so nobody can make two different
things collide on purpose. By accident 100 million things have two equal hashes in one file of 3,700.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator

from common.writing import write_all_at

BUCKETS = 256
BUCKET_HASHES = 4096
"""Held in memory for each bucket, 8 MiB in all; more go to the file."""
PASS_HASHES = 500_000
"""Looked at together, as a set: about 50 MiB."""
_BLOCK_BYTES = BUCKET_HASHES * 8


class Distinct:
    """Takes hashes, then says whether all of them were different."""

    def __init__(self, spill: int | None = None) -> None:
        """
        Args:
            spill: descriptor of an empty file to put there what is too much for the memory; None: memory alone.
        """
        self._spill = spill
        self._buckets = [array("q") for _ in range(BUCKETS)]
        self._blocks: list[list[int]] = [[] for _ in range(BUCKETS)]
        self._count = 0

    def add(self, hashes: array[int]) -> None:
        """Take hashes, at best many at a time; the array is empty afterwards.

        Raises:
            OSError: the file cannot take more.
        """
        buckets = self._buckets
        for one in hashes:
            buckets[one & 255].append(one)
        del hashes[:]
        if self._spill is not None:
            for number, bucket in enumerate(buckets):
                while len(bucket) >= BUCKET_HASHES:
                    self._write(self._spill, number, bucket)

    def _write(self, spill: int, number: int, bucket: array[int]) -> None:
        write_all_at(spill, bucket[:BUCKET_HASHES].tobytes(), self._count * _BLOCK_BYTES)
        self._blocks[number].append(self._count)
        self._count += 1
        del bucket[:BUCKET_HASHES]

    def has_any_twice(self) -> bool:
        """Look at everything that was added."""
        for number in range(BUCKETS):
            total = len(self._buckets[number]) + len(self._blocks[number]) * BUCKET_HASHES
            passes = total // PASS_HASHES + 1
            for turn in range(passes):
                seen: set[int] = set()
                expected = 0
                for part in self._parts(number):
                    chosen = part if passes == 1 else [one for one in part if (one >> 8) % passes == turn]
                    seen.update(chosen)
                    expected += len(chosen)
                if len(seen) != expected:
                    return True
        return False

    def _parts(self, number: int) -> Iterator[array[int]]:
        yield self._buckets[number]
        if self._spill is not None:
            for block in self._blocks[number]:
                part = array("q")
                part.frombytes(os.pread(self._spill, _BLOCK_BYTES, block * _BLOCK_BYTES))
                yield part
