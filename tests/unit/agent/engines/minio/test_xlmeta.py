"""An xl.meta is read as MinIO writes it, and one that does not hold together is never taken for another."""

from __future__ import annotations

import random
import uuid
from dataclasses import replace
from typing import Any

import msgspec
import pytest
import xxhash

from agent.engines.minio.drive.xlmeta import MadeUpError, OldFormatError, header_version, holds_one, read

ID, DATA = uuid.UUID(int=0x1234), uuid.UUID(int=0x5678)
_TIME_NS = 1_700_000_000_123_456_789
pack = msgspec.msgpack.encode


def _object(**fields: Any) -> dict[str, Any]:
    known = {
        "ID": ID.bytes,
        "DDir": DATA.bytes,
        "EcAlgo": 1,
        "EcM": 1,
        "EcN": 0,
        "EcBSize": 1 << 20,
        "EcIndex": 1,
        "EcDist": [1],
        "CSumAlgo": 1,
        "PartNums": [1, 2],
        "PartSizes": [5, 3],
        "PartASizes": [5, 3],
        "Size": 8,
        "MTime": _TIME_NS,
        "MetaSys": {},
        "MetaUsr": {"etag": "0123-2", "content-type": "text/plain", "X-Amz-Meta-A": "b"},
    }
    return {"Type": 1, "V2Obj": {**known, **fields}}


def _marker() -> dict[str, Any]:
    return {"Type": 2, "DelObj": {"ID": ID.bytes, "MTime": _TIME_NS, "MetaSys": {}}}


def _file(*versions: dict[str, Any], version: int = 3, flags: int = 0, inline: bytes = b"") -> bytes:
    parts = [bytes([version, 3]), pack(len(versions))]
    for body in versions:
        of_kind = body.get("V2Obj") or body["DelObj"]
        header = [of_kind["ID"] or bytes(16), of_kind["MTime"], bytes(4), body["Type"], flags]
        parts += [pack(pack(header)), pack(pack(body))]
    content = b"".join(parts)
    checksum = b"\xce" + xxhash.xxh64_digest(content)[4:]
    return b"XL2 \x01\x00\x03\x00\xc6" + len(content).to_bytes(4, "big") + content + checksum + inline


def test_an_object_of_several_parts_is_read() -> None:
    [version] = read(_file(_object())).versions

    assert (version.id, version.size, version.etag) == (str(ID), 8, "0123-2")
    assert (version.data_directory, version.parts) == (str(DATA), ((1, 5), (2, 3)))
    assert version.metadata == {"content-type": "text/plain", "X-Amz-Meta-A": "b"}
    assert version.modified_ns == _TIME_NS


def test_versions_keep_their_order_and_markers_are_told() -> None:
    versions = read(_file(_marker(), _object(ID=bytes(16)))).versions

    assert [(version.id, version.is_marker) for version in versions] == [(str(ID), True), ("null", False)]


def test_what_lies_within_the_file_has_no_parts_beside_it() -> None:
    inline = b"\x01" + pack({"null": b"content"})

    [version] = read(_file(_object(MetaSys={"x-minio-internal-inline-data": b"true"}), inline=inline)).versions

    assert (version.data_directory, version.parts, version.size) == ("", (), 8)


def test_encryption_and_compression_are_told_and_sealed_etags_are_not_compared() -> None:
    server = {"X-Minio-Internal-Server-Side-Encryption-S3-Sealed-Key": b"k", "X-Minio-Internal-compression": b"s2"}
    customer = {"X-Minio-Internal-Server-Side-Encryption-Sealed-Key": b"k"}

    versions = read(_file(_object(MetaSys=server), _object(MetaSys=customer), _object())).versions

    assert [version.encryption for version in versions] == ["server", "customer", ""]
    assert [version.is_compressed for version in versions] == [True, False, False]
    assert [bool(version.etag) for version in versions] == [False, False, True]


@pytest.mark.parametrize("size", [1, 14, 20, 300, 70_000])
def test_headers_are_the_bytes_that_they_are(size: int) -> None:
    text, count = "x" * size, min(size, 300)
    raw = _object(
        ID=None,
        PartNums=[200 + number % 50 for number in range(count)],
        PartSizes=[-1] * count,
        PartASizes=[1 << 40] * count,
        MetaSys={f"s{number}": bytes(number % 9) for number in range(count)} | {"n": None, "t": True, "f": False},
        MetaUsr={f"x-amz-meta-{number}": "" for number in range(count)} | {"cache-control": f"Q{text}", "Q": "grün"},
    )

    [of_text] = read(_file(raw)).versions
    [of_bytes] = read(_file(raw).replace(b"Q", b"\xfc")).versions

    assert of_bytes == replace(of_text, metadata=of_bytes.metadata)
    assert of_bytes.metadata == {
        **{name: value for name, value in of_text.metadata.items() if name not in ("Q", "cache-control")},
        "cache-control": f"\udcfc{text}",
        "\udcfc": "grün",
    }


def test_versions_that_are_only_to_be_freed_are_none() -> None:
    assert read(_file(_marker(), flags=1)).versions == []


def test_the_size_is_the_contents_own() -> None:
    [version] = read(_file(_object(PartASizes=[50, 30]))).versions

    assert version.size == 80


@pytest.mark.parametrize("version", [2, 3, 4])
def test_the_version_of_the_header_is_told(version: int) -> None:
    content = _file(_object(), version=version)

    assert header_version(content) == read(content).header_version == version


@pytest.mark.parametrize(
    "content",
    [b"", b"XL2 ", b"XL1 " + bytes(40), b"XL2 \x02\x00" + bytes(40), b"XL2 \x01\x00\x02\x00" + bytes(40), bytes(100)],
    ids=["empty", "cut", "other magic", "other version", "of before 2022", "zeros"],
)
def test_what_is_no_xl_meta_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"xl\.meta"):
        read(content)


@pytest.mark.parametrize(
    "content", [b"XL2 1   \x81" + bytes(40), b"XL2 \x01\x00\x02\x00\xc6\x00\x00\x00\x01\x81" + bytes(40)]
)
def test_what_is_too_old_to_be_read_is_told_from_what_is_damaged(content: bytes) -> None:
    with pytest.raises(OldFormatError):
        read(content)
    with pytest.raises(ValueError, match="that it is not"):
        read(_file(_object()).replace(b"\x01\x00\x03\x00", b"\x01\x00\x02\x00", 1))


def test_a_file_that_is_cut_anywhere_is_refused() -> None:
    whole = _file(_object(), _marker(), inline=b"\x01" + pack({"null": b"content"}))
    # Without the part for inline data a file is whole too.
    without_inline = len(_file(_object(), _marker()))

    for size in range(len(whole)):
        if size != without_inline:
            with pytest.raises(ValueError, match=r"."):
                read(whole[:size])


def test_no_bit_of_the_versions_or_of_their_checksum_changes_unseen() -> None:
    whole = _file(_object(), _marker())
    assert read(whole).is_intact

    for at in range(13, len(whole)):
        for bit in range(8):
            changed = bytearray(whole)
            changed[at] ^= 1 << bit
            try:
                assert not read(bytes(changed)).is_intact
            except ValueError:
                continue


def test_no_change_of_bytes_raises_anything_else() -> None:
    dice = random.Random(7)
    whole = _file(_object(), _marker(), _object(), inline=b"\x01" + pack({"null": b"content"}))

    for number in range(6_000):
        # Half of them are no UTF-8 to begin with.
        changed = bytearray(whole.replace(b"text", b"te\xffx") if number % 2 else whole)
        for _ in range(dice.randrange(1, 4)):
            changed[dice.randrange(len(changed))] = dice.randrange(256)
        try:
            read(bytes(changed))
        except ValueError:
            continue


_INLINE = {"x-minio-internal-inline-data": b"true"}


def _own(body: bytes = b"", header: list[object] | None = None, *, count: int = 1, rest: bytes = b"") -> bytes:
    """Of one of the server's own files."""
    body = body or pack(_object(ID=bytes(16), MetaSys=_INLINE))
    version = pack(pack(header or [bytes(16), _TIME_NS, bytes(4), 1, 0])) + pack(body)
    content = bytes([3, 3]) + pack(count) + version * count + rest
    return b"XL2 \x01\x00\x03\x00\xc6" + len(content).to_bytes(4, "big") + content + b"\xce" + bytes(4)


def _twice(name: str) -> bytes:
    """A body whose version says something twice."""
    fields = _object(ID=bytes(16), MetaSys=_INLINE)["V2Obj"]
    pairs = [*fields.items(), (name, fields[name])]
    packed = b"".join(pack(key) + pack(value) for key, value in pairs)
    return b"\x82" + pack("Type") + pack(1) + pack("V2Obj") + b"\xde" + len(pairs).to_bytes(2, "big") + packed


def test_a_servers_own_file_holds_one_version() -> None:
    assert holds_one(_own())
    assert holds_one(_own(pack(_object(ID=bytes(16)))))


@pytest.mark.parametrize(
    "content",
    [
        _own(count=2),
        _own(rest=b"\0"),
        _own(header=[ID.bytes, _TIME_NS, bytes(4), 1, 0]),
        _own(pack(_object())),
        _own(pack(_marker())),
        _own(pack(_object(ID=bytes(16))) + b"\0"),
        _own(_twice("MetaSys")),
        _own(_twice("DDir")),
        _own(pack(_object(ID=bytes(16), MetaSys={"X-Minio-Internal-inline-data": b"true"}))),
        _own(pack(_object(ID=bytes(16), MetaSys=_INLINE | {"X-Minio-Internal-Transition-tier": b"a"}))),
        _own(pack({"Type": 1, "V2Obj": 1})),
        _own(pack([])),
        b"",
    ],
)
def test_one_that_may_be_taken_otherwise_does_not(content: bytes) -> None:
    assert not holds_one(content)


def test_content_that_is_named_twice_is_not_read() -> None:
    twice = b"\x01\x82" + pack("null") + pack(b"content") + pack("null") + pack(b"another")

    with pytest.raises(ValueError, match="data that cannot be read"):
        read(_file(_object(MetaSys=_INLINE), inline=twice))


_MADE_UP = {
    "no block": _object(EcBSize=0),
    "a negative block": _object(EcBSize=-1),
    "another drive": _object(EcIndex=9),
    "no drives": _object(EcDist=[]),
    "two blocks of data": _object(EcM=2),
    "parity": _object(EcN=1),
    "no sizes of parts": _object(PartASizes=[]),
    "too few sizes of parts": _object(PartSizes=[8]),
    "endless": _object(Size=float("inf")),
    "less than nothing": _object(Size=-1),
    "an id that is a number": _object(ID=1 << 40),
    "a directory that is a number": _object(DDir=1 << 33),
    "a time that is none": _object(MTime=float("inf")),
    "at no time": _object(MTime=0),
    "before all times": _object(MTime=-1),
    "of another kind": {**_object(), "Type": 2},
    "of an unknown kind": {**_object(), "Type": 9},
}


@pytest.mark.parametrize("body", _MADE_UP.values(), ids=_MADE_UP)
def test_what_no_server_with_a_single_drive_writes_is_told_from_what_is_damaged(body: dict[str, Any]) -> None:
    with pytest.raises(MadeUpError):
        read(_file(body))
    # With another checksum no server reads it.
    content = _file(body)
    try:
        assert not read(content[:-1] + bytes([content[-1] ^ 1])).is_intact
    except ValueError as damaged:
        assert not isinstance(damaged, MadeUpError)  # noqa: PT017  # it may be read as well


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (pack(ID.bytes), pack(DATA.bytes)),
        (pack(_TIME_NS), pack(_TIME_NS + 1)),
        (bytes(4) + b"\x01\x00", bytes(4) + b"\x02\x00"),
        (bytes(4) + b"\x01\x00", bytes(4) + b"\x01\x01"),
    ],
    ids=["id", "time", "kind", "only to be freed"],
)
def test_a_version_that_its_header_says_to_be_another_is_made_up(old: bytes, new: bytes) -> None:
    content = _file(_object())
    end = 13 + int.from_bytes(content[9:13], "big")
    # The header comes first.
    versions = content[13:end].replace(old, new, 1)
    assert versions != content[13:end]

    with pytest.raises(MadeUpError):
        read(content[:13] + versions + b"\xce" + xxhash.xxh64_digest(versions)[4:])
