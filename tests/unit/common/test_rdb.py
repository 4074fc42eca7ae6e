"""What an RDB file says of itself, and its checksum."""

from __future__ import annotations

import pytest

from common.rdb import RdbHeader, crc64, read_header, read_magic
from tests.fixtures.rdb_files import aux, rdb


def test_the_checksum_is_that_of_redis_in_one_go_and_in_parts() -> None:
    assert crc64(b"123456789") == 0xE9C6D914C4B8D9CA
    assert crc64(b"6789", crc64(b"12345")) == 0xE9C6D914C4B8D9CA
    assert crc64(memoryview(b"x123456789")[1:]) == 0xE9C6D914C4B8D9CA


@pytest.mark.parametrize(
    ("magic", "expected"),
    [
        (b"REDIS0009", RdbHeader("redis", 9)),
        (b"REDIS0012...", RdbHeader("redis", 12)),
        (b"VALKEY080", RdbHeader("valkey", 80)),
        (b"REDISabcd", None),
        (b"REDIS000", None),
        (b"*2\r\n$6\r\nSELECT", None),
        (b"", None),
    ],
)
def test_the_magic_tells_whose_version_it_is(magic: bytes, expected: RdbHeader | None) -> None:
    header = read_magic(magic)

    assert header == expected
    assert header is None or magic.startswith(header.magic.encode())


def test_the_fields_before_the_data_tell_who_wrote_it() -> None:
    file = rdb(aux("valkey-ver", "8.1.8"), b"\xfa\x0aredis-bits\xc0\x40", aux("used-mem", "123456"), magic="REDIS0011")

    header = read_header(file)

    assert header is not None
    assert header.fields == {"valkey-ver": "8.1.8", "redis-bits": "64", "used-mem": "123456"}
    assert header.writer == "Valkey 8.1.8"


@pytest.mark.parametrize("cut", range(9, 60))
def test_a_head_that_is_cut_off_tells_what_it_has(cut: int) -> None:
    file = rdb(aux("redis-ver", "7.0.15"), b"\xfa\x0aredis-bits\xc1\x40\x00", aux("long", "x" * 100))

    header = read_header(file[:cut])

    assert header is not None
    assert header.fields.items() <= {"redis-ver": "7.0.15", "redis-bits": "64"}.items()


def test_a_field_that_is_compressed_ends_the_fields() -> None:
    header = read_header(rdb(aux("redis-ver", "6.2.5"), b"\xfa\x04name\xc3\x05\x20abcde"))

    assert header is not None
    assert header.fields == {"redis-ver": "6.2.5"}
    assert header.writer == "Redis 6.2.5"
