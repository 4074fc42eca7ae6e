"""LZF: what servers compress comes out right; what would read or write elsewhere is refused."""

from __future__ import annotations

import pytest

from agent.engines.rdb import lzf

CASES = {
    "literal": (b"\x04hello", b"hello"),
    "far reference": (b"\x04hello\x60\x04", b"hellohello"[:10]),
    "overlapping run": (b"\x00a\xe0\x10\x00", b"a" * 26),
    "overlapping pattern": (b"\x01ab\x80\x01", b"ab" + b"ababab"),
    "empty": (b"", b""),
}


@pytest.mark.parametrize(("packed", "expected"), CASES.values(), ids=CASES)
def test_what_was_packed_comes_out(packed: bytes, expected: bytes) -> None:
    assert lzf.decompress(packed, len(expected)) == expected
    lzf.check(packed, len(expected))


BAD = {
    "reference before the beginning": (b"\x00a\x20\x01", 4),
    "reference at the very beginning": (b"\x20\x00", 3),
    "literal that is cut off": (b"\x04hel", 5),
    "reference that is cut off": (b"\x00a\x20", 4),
    "long reference that is cut off": (b"\x00a\xe0\x10", 26),
    "more than announced": (b"\x04hello", 4),
    "less than announced": (b"\x04hello", 6),
    "run beyond what is announced": (b"\x00a\xe0\xff\x00", 5),
}


@pytest.mark.parametrize(("packed", "size"), BAD.values(), ids=BAD)
def test_what_no_server_writes_is_refused(packed: bytes, size: int) -> None:
    with pytest.raises(lzf.LzfError):
        lzf.decompress(packed, size)
    with pytest.raises(lzf.LzfError):
        lzf.check(packed, size)
