"""HighwayHash-256 with MinIO's key: the sum that it keeps before each block of an object's data.

There is no maintained library for it on PyPI (November 2026: one from 2020, without wheels). In Python it is slow, some
MB/s, so it is asked only about what an ETag does not prove.
"""

from __future__ import annotations

import struct

_KEY = bytes.fromhex("4be734fa8e238acd263e83e6bb968552040f935da39f441497e09d1322de36a0")
"""`magicHighwayHash256Key` of MinIO's cmd/bitrot.go: the same on all servers."""
_LANE = (1 << 64) - 1
_HALF = (1 << 32) - 1
_START_0 = (0xDBE6D5D5FE4CCE2F, 0xA4093822299F31D0, 0x13198A2E03707344, 0x243F6A8885A308D3)
_START_1 = (0x3BD39E10CB0EF593, 0xC0ACF169B5F18A8C, 0xBE5466CF34E90C6C, 0x452821E638D01377)
_PACKET = struct.Struct("<4Q")

_Lanes = tuple[int, int, int, int]
_State = tuple[_Lanes, _Lanes, _Lanes, _Lanes]


def sum_of(content: bytes | memoryview) -> bytes:
    """Its 32 bytes, as MinIO's `HighwayHash256S` has them."""
    key: _Lanes = _PACKET.unpack(_KEY)
    turned = (_turned(key[0]), _turned(key[1]), _turned(key[2]), _turned(key[3]))
    state = (_xored(_START_0, key), _xored(_START_1, turned), _START_0, _START_1)
    whole = len(content) // 32 * 32
    state = _updated(state, memoryview(content)[:whole])
    if rest := bytes(content[whole:]):
        state = _with_rest(state, rest)
    for _ in range(10):
        v0 = state[0]
        state = _updated(state, _PACKET.pack(_turned(v0[2]), _turned(v0[3]), _turned(v0[0]), _turned(v0[1])))
    v0, v1, m0, m1 = state
    found: list[int] = []
    for low in (0, 2):
        high = low + 1
        a0, a1 = (v0[low] + m0[low]) & _LANE, (v0[high] + m0[high]) & _LANE
        a2, a3 = (v1[low] + m1[low]) & _LANE, (v1[high] + m1[high]) & (_LANE >> 2)
        found += [
            a0 ^ (a2 << 1) & _LANE ^ (a2 << 2) & _LANE,
            a1 ^ (a3 << 1 | a2 >> 63) & _LANE ^ (a3 << 2 | a2 >> 62) & _LANE,
        ]
    return _PACKET.pack(*found)


def _updated(state: _State, packets: bytes | memoryview) -> _State:
    """With whole packets; written out, since this loop is all of the time."""
    (a0, a1, a2, a3), (b0, b1, b2, b3), (c0, c1, c2, c3), (d0, d1, d2, d3) = state
    for p0, p1, p2, p3 in _PACKET.iter_unpack(packets):
        b0 = (b0 + p0 + c0) & _LANE
        b1 = (b1 + p1 + c1) & _LANE
        b2 = (b2 + p2 + c2) & _LANE
        b3 = (b3 + p3 + c3) & _LANE
        c0 ^= (b0 & _HALF) * (a0 >> 32)
        c1 ^= (b1 & _HALF) * (a1 >> 32)
        c2 ^= (b2 & _HALF) * (a2 >> 32)
        c3 ^= (b3 & _HALF) * (a3 >> 32)
        a0 = (a0 + d0) & _LANE
        a1 = (a1 + d1) & _LANE
        a2 = (a2 + d2) & _LANE
        a3 = (a3 + d3) & _LANE
        d0 ^= (a0 & _HALF) * (b0 >> 32)
        d1 ^= (a1 & _HALF) * (b1 >> 32)
        d2 ^= (a2 & _HALF) * (b2 >> 32)
        d3 ^= (a3 & _HALF) * (b3 >> 32)
        a0 = (a0 + _zipped_low(b1, b0)) & _LANE
        a1 = (a1 + _zipped_high(b1, b0)) & _LANE
        a2 = (a2 + _zipped_low(b3, b2)) & _LANE
        a3 = (a3 + _zipped_high(b3, b2)) & _LANE
        b0 = (b0 + _zipped_low(a1, a0)) & _LANE
        b1 = (b1 + _zipped_high(a1, a0)) & _LANE
        b2 = (b2 + _zipped_low(a3, a2)) & _LANE
        b3 = (b3 + _zipped_high(a3, a2)) & _LANE
    return (a0, a1, a2, a3), (b0, b1, b2, b3), (c0, c1, c2, c3), (d0, d1, d2, d3)


def _zipped_low(high: int, low: int) -> int:
    return (
        ((low & 0xFF000000) | (high & 0xFF00000000)) >> 24
        | ((low & 0xFF0000000000) | (high & 0xFF000000000000)) >> 16
        | low & 0xFF0000
        | (low & 0xFF00) << 32
        | (high & 0xFF00000000000000) >> 8
        | (low << 56) & _LANE
    )


def _zipped_high(high: int, low: int) -> int:
    return (
        ((high & 0xFF000000) | (low & 0xFF00000000)) >> 24
        | high & 0xFF0000
        | (high & 0xFF0000000000) >> 16
        | (high & 0xFF00) << 24
        | (low & 0xFF000000000000) >> 8
        | (high & 0xFF) << 48
        | low & 0xFF00000000000000
    )


def _with_rest(state: _State, rest: bytes) -> _State:
    """With the last 1 to 31 bytes."""
    size = len(rest)
    a, (b0, b1, b2, b3), c, d = state
    a0, a1, a2, a3 = ((lane + (size << 32) + size) & _LANE for lane in a)
    b = (_rotated(b0, size), _rotated(b1, size), _rotated(b2, size), _rotated(b3, size))
    packet = bytearray(32)
    whole = size // 4 * 4
    packet[:whole] = rest[:whole]
    if size & 16:
        packet[28:] = rest[-4:]
    elif size % 4:
        packet[16] = rest[whole]
        packet[17] = rest[whole + size % 4 // 2]
        packet[18] = rest[-1]
    return _updated(((a0, a1, a2, a3), b, c, d), bytes(packet))


def _rotated(lane: int, by: int) -> int:
    low, high = lane & _HALF, lane >> 32
    low, high = ((half << by | half >> (32 - by)) & _HALF for half in (low, high))
    return high << 32 | low


def _turned(lane: int) -> int:
    return (lane >> 32 | lane << 32) & _LANE


def _xored(left: _Lanes, right: _Lanes) -> _Lanes:
    return left[0] ^ right[0], left[1] ^ right[1], left[2] ^ right[2], left[3] ^ right[3]
