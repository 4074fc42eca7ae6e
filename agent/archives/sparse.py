"""Files with holes: where their data is, and the maps that tars keep of it.

Written is GNU's format 1.0 (the map is the beginning of the data); read are 0.0, 0.1, 1.0 and the one before pax.
Sources: GNU tar manual, "Storing Sparse Files"; layouts checked against GNU tar 1.34.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator

from agent.archives import tarblocks as tar
from common.errors import ArchiveDamagedError, LimitExceededError

MAX_SEGMENTS = 1 << 18
"""Of one file, when reading: about 30 MiB of memory."""
_WRITTEN_SEGMENTS = 1 << 14
_SMALLEST_HOLE = 4096

Segments = list[tuple[int, int]]


def segments_of(descriptor: int, size: int) -> Segments:
    """Where a file has data, as the filesystem says; small holes count as data when there are very many."""
    smallest = _SMALLEST_HOLE
    segments: Segments = []
    for offset, end in _data(descriptor, size):
        if segments and offset - sum(segments[-1]) < smallest:
            segments[-1] = (segments[-1][0], end - segments[-1][0])
        else:
            segments.append((offset, end - offset))
        while len(segments) > _WRITTEN_SEGMENTS:
            smallest *= 4
            segments = _joined(segments, smallest)
    return segments


def map_text(segments: Segments, size: int) -> bytes:
    """The map that format 1.0 puts before the data, a hole at the end named by an empty segment; padded."""
    if not segments or sum(segments[-1]) < size:
        segments = [*segments, (size, 0)]
    text = b"".join(b"%d\n%d\n" % segment for segment in segments)
    text = b"%d\n%b" % (len(segments), text)
    return text + tar.padding(len(text))


def read_map(next_block: Callable[[], bytes], *, real_size: int) -> Segments:
    """The map of format 1.0 from the first blocks of a member's data."""
    numbers = _decimals(next_block)
    count = _within(next(numbers), MAX_SEGMENTS)
    return _checked([(next(numbers), next(numbers)) for _ in range(count)], real_size)


def segments_of_text(text: bytes, *, real_size: int) -> Segments:
    """The map of format 0.1: "offset,length,offset,length"."""
    if text.count(b",") > 2 * MAX_SEGMENTS:
        raise _too_many()
    numbers = [tar.decimal_of(number) for number in text.split(b",")] if text else []
    if len(numbers) % 2:
        raise _damaged()
    return _checked(list(zip(numbers[::2], numbers[1::2], strict=True)), real_size)


def read_old_map(header: bytes, next_block: Callable[[], bytes]) -> tuple[int, Segments]:
    """Real size and map from a header of GNU's own type "S" and the blocks that continue it."""
    real_size = tar.number_of(header[483:495])
    segments = _old_entries(header[386:482])
    is_continued = header[482] != 0
    while is_continued:
        block = next_block()
        segments += _old_entries(block[:504])
        is_continued = block[504] != 0
        _within(len(segments), MAX_SEGMENTS)
    return real_size, _checked(segments, real_size)


def _data(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    position = 0
    while position < size:
        try:
            start = os.lseek(descriptor, position, os.SEEK_DATA)
            end = min(os.lseek(descriptor, start, os.SEEK_HOLE), size)
        except OSError as failure:
            if failure.errno == errno.ENXIO:
                return
            # A filesystem that does not tell: all of it is data.
            start, end = position, size
        if start >= size or end <= start:
            return
        yield start, end
        position = end


def _joined(segments: Segments, smallest: int) -> Segments:
    joined = segments[:1]
    for offset, length in segments[1:]:
        if offset - sum(joined[-1]) < smallest:
            joined[-1] = (joined[-1][0], offset + length - joined[-1][0])
        else:
            joined.append((offset, length))
    return joined


def _decimals(next_block: Callable[[], bytes]) -> Iterator[int]:
    held = b""
    while True:
        while b"\n" not in held:
            if len(held) > 20:
                raise _damaged()
            held += next_block()
        digits, _, held = held.partition(b"\n")
        if not digits.isdigit() or len(digits) > 19:
            raise _damaged()
        yield int(digits)


def _old_entries(raw: bytes) -> Segments:
    pairs = [(tar.number_of(raw[at : at + 12]), tar.number_of(raw[at + 12 : at + 24])) for at in range(0, len(raw), 24)]
    return [pair for pair in pairs if pair != (0, 0)]


def _checked(segments: Segments, real_size: int) -> Segments:
    end = 0
    for offset, length in segments:
        if offset < end or length < 0:
            raise _damaged()
        end = offset + length
    if end > real_size:
        raise _damaged()
    return segments


def _within(count: int, most: int) -> int:
    if count > most:
        raise _too_many()
    return count


def _too_many() -> LimitExceededError:
    return LimitExceededError(f"The archive holds a sparse file with more than {MAX_SEGMENTS} pieces.")


def _damaged() -> ArchiveDamagedError:
    return ArchiveDamagedError("The archive is damaged: the map of a sparse file cannot be read.")
