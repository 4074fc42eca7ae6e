"""LZF, in which servers keep strings in a file: unpacked where the content matters, walked where it has to be right.

The checks are those that lzf_d.c makes: nothing is read before the beginning, and the announced size comes out.
"""

from __future__ import annotations


class LzfError(ValueError):
    """Not what a compressor writes."""


def decompress(data: bytes, size: int) -> bytes:
    """The content, which has to have `size` bytes."""
    out = bytearray()
    position, end = 0, len(data)
    try:
        while position < end:
            control = data[position]
            position += 1
            if control < 32:
                position += control + 1
                out += data[position - control - 1 : position]
                continue
            length = control >> 5
            if length == 7:
                length += data[position]
                position += 1
            start = len(out) - ((control & 31) << 8) - data[position] - 1
            position += 1
            length += 2
            if start < 0 or len(out) + length > size:
                raise LzfError
            if start + length <= len(out):
                out += out[start : start + length]
            else:
                repeated = out[start:]
                out += (repeated * (length // len(repeated) + 1))[:length]
    except IndexError:
        raise LzfError from None
    if position != end or len(out) != size:
        raise LzfError
    return bytes(out)


def check(data: bytes, size: int) -> None:
    """As `decompress`, without making the content: an order of magnitude less memory, and faster."""
    made = 0
    position, end = 0, len(data)
    try:
        while position < end:
            control = data[position]
            if control < 32:
                made += control + 1
                position += control + 2
                continue
            if control < 224:
                back = (control & 31) << 8 | data[position + 1]
                length = (control >> 5) + 2
                position += 2
            else:
                back = (control & 31) << 8 | data[position + 2]
                length = 9 + data[position + 1]
                position += 3
            if back >= made:
                raise LzfError
            made += length
    except IndexError:
        raise LzfError from None
    if position != end or made != size:
        raise LzfError
