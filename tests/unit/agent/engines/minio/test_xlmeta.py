"""An xl.meta is read as MinIO writes it, and one that does not hold together is never taken for another."""

from __future__ import annotations

import math
import random
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from agent.engines.minio.drive.xlmeta import MadeUpError, header_version, read, require_one
from tests.fixtures.minio_archives import Body, Header, marker_version, object_version, pack, xl_meta

ID, DATA = uuid.UUID(int=0x1234), uuid.UUID(int=0x5678)
_TIME_NS = 1_700_000_000_123_456_789


def _object(**fields: Any) -> tuple[Header, Body]:
    known = {
        "ID": ID.bytes,
        "DDir": DATA.bytes,
        "PartNums": [1, 2],
        "PartSizes": [5, 3],
        "PartASizes": [5, 3],
        "Size": 8,
        "MTime": _TIME_NS,
        "MetaUsr": {"etag": "0123-2", "content-type": "text/plain", "X-Amz-Meta-A": "b"},
    }
    return object_version(**{**known, **fields})


def _marker(**fields: Any) -> tuple[Header, Body]:
    return marker_version(**{"ID": ID.bytes, "MTime": _TIME_NS, **fields})


def _file(*versions: tuple[Header, Body], version: int = 3, inline: bytes = b"") -> bytes:
    return xl_meta(*versions, inline=inline, header_version=version)


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
    # Each part of it a server would read from its beginning.
    assert version.is_read_otherwise


@pytest.mark.parametrize(("vid", "inline"), [("null", "null"), (str(ID), str(ID))])
def test_what_is_left_in_the_file_is_told_where_a_server_takes_it(vid: str, inline: str) -> None:
    own_id = bytes(16) if vid == "null" else ID.bytes

    for left in (b"other", b""):
        [version] = read(_file(_object(ID=own_id), inline=b"\x01" + pack({inline: left}))).versions

        # With an id, a server looks at the parts first.
        assert version.is_read_otherwise == (vid == "null" and left != b"")
        assert version.parts == ((1, 5), (2, 3))


@pytest.mark.parametrize("status", [b"arn=PENDING;", b"a=COMPLETE;b=FAILED;", b"PENDING"])
def test_what_was_deleted_for_good_and_is_not_purged_yet_counts_as_deleted(status: bytes) -> None:
    [version] = read(_file(_object(MetaSys={"x-minio-internal-purgestatus": status}))).versions

    assert (version.id, version.is_marker, version.parts) == (str(ID), True, ())


def test_data_of_versions_that_are_gone_may_be_left_in_the_file() -> None:
    [version] = read(_file(_object(), inline=b"\x01" + pack({"null": b"of one that was deleted"}))).versions

    assert not version.is_read_otherwise


def test_data_in_the_file_that_is_named_by_its_directory_is_refused() -> None:
    content = _file(_object(), inline=b"\x01" + pack({str(DATA): b"content"}))

    with pytest.raises(MadeUpError, match="named by its directory"):
        read(content)


def test_content_that_is_nowhere_is_looked_for_where_a_server_does() -> None:
    [version] = read(_file(_object(DDir=bytes(16)))).versions

    assert (version.data_directory, version.parts) == (str(uuid.UUID(int=0)), ((1, 5), (2, 3)))


_TIERED = {"x-minio-internal-transition-status": b"complete", "x-minio-internal-transition-tier": b"COLD"}


def test_content_in_a_tier_is_not_in_the_file_although_a_server_left_that_it_is() -> None:
    [version] = read(_file(_object(MetaSys=_TIERED | {"x-minio-internal-inline-data": b"true"}))).versions

    assert (version.tier, version.is_inline, version.parts) == ("COLD", False, ())


def test_internal_names_are_a_servers_own_in_its_own_case_alone() -> None:
    others = {
        "X-Minio-Internal-Inline-Data": b"true",
        "X-Minio-Internal-Transition-Status": b"complete",
        "x-minio-internal-compression": b"s2",
        "x-minio-internal-server-side-encryption-sealed-key": b"k",
    }

    [version] = read(_file(_object(MetaSys=others))).versions

    assert version == read(_file(_object())).versions[0]


@pytest.mark.parametrize("name", ["X-Minio-Internal-compression", "x-minio-internal-inline-data"])
def test_internal_names_among_a_clients_metadata_are_refused(name: str) -> None:
    with pytest.raises(MadeUpError, match="MetaUsr"):
        read(_file(_object(MetaUsr={name: "s2"})))


def test_an_internal_name_in_two_cases_is_refused() -> None:
    twice = _TIERED | {"X-Minio-Internal-transition-status": b"none"}

    for version in (_object(MetaSys=twice), _marker(MetaSys=twice)):
        with pytest.raises(MadeUpError, match="MetaSys"):
            read(_file(version))


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
        ID=bytes(16),
        PartNums=[200 + number % 50 for number in range(count)],
        PartSizes=[7] * count,
        PartASizes=[1 << 40] * count,
        Size=7 * count,
        MetaSys={f"s{number}": bytes(number % 9) for number in range(count)},
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
    free = {"x-minio-internal-free-version": b""}

    found = read(_file(_marker(MetaSys=free | _TIERED), _marker(MetaSys=free)))

    assert (found.versions, found.freed) == ([], ("COLD", "?"))


def test_the_size_is_the_contents_own() -> None:
    [version] = read(_file(_object(PartASizes=[50, 30]))).versions

    assert version.size == 80


@pytest.mark.parametrize("version", [2, 3, 4])
def test_the_version_of_the_header_is_told(version: int) -> None:
    header, body = _object()
    content = _file((header[:5] if version == 2 else header, body), version=version)

    assert header_version(content) == read(content).header_version == version


@pytest.mark.parametrize(
    "content",
    [b"", b"XL2 ", b"XL1 " + bytes(40), b"XL2 \x02\x00" + bytes(40), b"XL2 \x01\x00\x02\x00" + bytes(40), bytes(100)],
    ids=["empty", "cut", "other magic", "other version", "of before 2022", "zeros"],
)
def test_what_is_no_xl_meta_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"xl\.meta"):
        read(content)


_OF_2021 = pack({"Versions": []})


@pytest.mark.parametrize(
    "content",
    [
        b"XL2 1   " + _OF_2021,
        b"XL2 \x01\x00\x01\x00\xc4\x0b" + _OF_2021,
        b"XL2 \x01\x00\x02\x00\xc6\x00\x00\x00\x0b" + _OF_2021,
        b"XL2 \x01\x00\x02\x00\xc5\x00\x0d\xde\x00\x01" + _OF_2021[1:],
        b' {"version":"1.0.1","format":"xl"}',
        b"XL2 ",
    ],
    ids=["of 2020", "of 2021", "of 2021 too", "another map", "of before 2020", "absurdly long"],
)
def test_what_a_server_reads_and_none_with_one_drive_wrote_is_told_from_what_is_damaged(content: bytes) -> None:
    with pytest.raises(MadeUpError):
        read(content)
    with pytest.raises(ValueError, match="that it is not") as raised:
        read(_file(_object()).replace(b"\x01\x00\x03\x00", b"\x01\x00\x02\x00", 1))
    assert type(raised.value) is ValueError


_HUGE = 2**62
_MANY = b"\xff\xff\xff\xff\x7f"
"""Parts, as a checksum tells their number."""


_UNFIT: dict[str, Sequence[object]] = {
    "EcBSize": (0, -1, 1, 1 << 21, _HUGE),
    "EcM": (0, -1, 2, _HUGE),
    "EcN": (1, -1),
    "EcIndex": (0, 2, -1),
    "EcDist": ([], [0], [9], [1, 2], [True], b"\x01", None),
    "EcAlgo": (0, 2, 1.0, True),
    "CSumAlgo": (0, 2, 1.0, True),
    "PartNums": ([], [1], [0, 1], [1, _HUGE], [1, 10_001], [1, 2.0], None),
    "PartSizes": ([], [8], [-1, 9], [math.inf, 3], [5, 4], None),
    "PartASizes": ([], [8], [-2, 3], [math.inf, 3], None),
    "PartETags": (["a"], [b"a", b"b"]),
    "PartIdx": ([b"a"], ["a", "b"]),
    "Size": (-5, 7, _HUGE, math.inf, 8.0, None),
    "MTime": (0, -1, 2**63, math.inf, 1.5, None),
    "ID": (None, 1 << 40, b"short", "x" * 16),
    "DDir": (None, 1 << 40, b"short", "x" * 16),
    "MetaSys": (
        {"a": None},
        {b"a": b""},
        [],
        0,
        {"x-minio-internal-crc": b"\xc2\x01" + bytes(32) + _MANY},
        {"x-minio-internal-crc": b"\x84\x01" + bytes(20) + _MANY},
        {"x-minio-internal-purgestatus": b"arn=DONE;"},
        {"X-Minio-Internal-purgestatus": b"arn=PENDING;"},
        {"X-Minio-Internal-Server-Side-Encryption-Iv": b"iv"},
    ),
    "MetaUsr": ({"a": {"b": 1}}, {"a": None}, [], 0),
}


@pytest.mark.parametrize(
    ("field", "value"),
    [*((field, value) for field, values in _UNFIT.items() for value in values), (b"EcBSize", 0)],
    ids=str,
)
def test_fields_as_no_server_with_one_drive_writes_them_are_refused(field: str | bytes, value: object) -> None:
    header, body = _object()
    body["V2Obj"][field] = value
    header[0], header[1] = body["V2Obj"]["ID"], body["V2Obj"]["MTime"]

    with pytest.raises(MadeUpError):
        read(_file((header, body)))


@pytest.mark.parametrize("field", sorted(_object()[1]["V2Obj"].keys() - {"MetaSys", "MetaUsr"}))
def test_a_version_without_one_of_its_fields_is_refused(field: str) -> None:
    header, body = _object()
    del body["V2Obj"][field]

    with pytest.raises(MadeUpError):
        read(_file((header, body)))


@pytest.mark.parametrize(
    "fields",
    [
        {"EcBSize": 10 << 20},
        {"PartETags": ["a", "b"], "PartIdx": [b"", b"index"]},
        {"PartASizes": [-1, -1]},
        {"PartNums": [], "PartSizes": [], "PartASizes": None, "Size": 0},
        {"PartNums": [3, 3]},
        {"MetaSys": None, "MetaUsr": None},
        {"MetaSys": {"x-minio-internal-crc": b"\x08" + bytes(4)}},
        {"MetaSys": {"x-minio-internal-crc": b"\xc2\x01" + bytes(32) + b"\x02" + bytes(64)}},
    ],
    ids=str,
)
def test_fields_as_servers_have_written_them_are_taken(fields: dict[str, Any]) -> None:
    assert len(read(_file(_object(**fields))).versions) == 1


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, DATA.bytes),
        (0, None),
        (1, _TIME_NS + 1),
        (1, float(_TIME_NS)),
        (2, b"abc"),
        (3, 2),
        (3, 3),
        (3, []),
        (4, 0),
        (4, 3),
        (4, 6),
        (4, 10),
        (5, 1),
        (6, 2),
    ],
)
def test_a_header_that_says_something_else_than_its_version_is_refused(at: int, value: object) -> None:
    header, body = _object()
    header[at] = value

    with pytest.raises(MadeUpError):
        read(_file((header, body)))


def test_headers_are_taken_as_other_releases_have_written_them() -> None:
    header, body = _object()
    of_older = [*header[:5], 0, 0]
    tiered, of_tiered = _object(MetaSys={"x-minio-internal-transition-status": b"complete"})
    # It may have been lent back when that was written.
    not_there = [*tiered[:4], tiered[4] & ~2, *tiered[5:]]

    for version in ((of_older, body), (tiered, of_tiered), (not_there, of_tiered)):
        assert len(read(_file(version)).versions) == 1


def test_versions_that_are_not_in_their_order_are_refused() -> None:
    newer = _object(MTime=_TIME_NS + 1)

    assert len(read(_file(newer, _object(), _marker())).versions) == 3
    with pytest.raises(MadeUpError, match="order"):
        read(_file(_object(), newer))


def test_what_no_checksum_vouches_for_is_damaged_and_not_made_up() -> None:
    content = _file(_object(EcBSize=0), _object(MTime=_TIME_NS + 1))
    end = 13 + int.from_bytes(content[9:13], "big")

    assert not read(content[: end + 1] + bytes(4) + content[end + 5 :]).is_intact


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


def _body(**fields: Any) -> bytes:
    return pack(_object(**fields)[1])


def _own(body: bytes = b"", header: list[object] | None = None, *, count: int = 1, rest: bytes = b"") -> bytes:
    """Of one of the server's own files."""
    body = body or _body(ID=bytes(16), MetaSys=_INLINE, PartNums=[1])
    version = pack(pack(header or [bytes(16), _TIME_NS, bytes(4), 1, 0])) + pack(body)
    content = bytes([3, 3]) + pack(count) + version * count + rest
    return b"XL2 \x01\x00\x03\x00\xc6" + len(content).to_bytes(4, "big") + content + b"\xce" + bytes(4)


def _twice(name: str) -> bytes:
    """A body whose version says something twice."""
    fields = _object(ID=bytes(16), MetaSys=_INLINE, PartNums=[1])[1]["V2Obj"]
    pairs = [*fields.items(), (name, fields[name])]
    packed = b"".join(pack(key) + pack(value) for key, value in pairs)
    return b"\x82" + pack("Type") + pack(1) + pack("V2Obj") + b"\xde" + len(pairs).to_bytes(2, "big") + packed


def test_a_servers_own_file_holds_one_version() -> None:
    require_one(_own())
    require_one(_own(_body(ID=bytes(16), PartNums=[1])))


@pytest.mark.parametrize(
    "content",
    [
        _own(count=2),
        _own(rest=b"\0"),
        _own(header=[ID.bytes, _TIME_NS, bytes(4), 1, 0]),
        _own(_body()),
        _own(pack(_marker()[1])),
        _own(_body(ID=bytes(16), PartNums=[1]) + b"\0"),
        _own(_body(ID=bytes(16), PartNums=[1, 2])),
        _own(_body(ID=bytes(16), PartNums=[1], MetaSys={"X-Minio-Internal-compression": b"klauspost/compress/s2"})),
        _own(_body(ID=bytes(16), PartNums=[1], MetaSys={"X-Minio-Internal-Server-Side-Encryption-Iv": b""})),
        _own(_twice("MetaSys")),
        _own(_twice("DDir")),
        _own(_body(ID=bytes(16), MetaSys={"X-Minio-Internal-inline-data": b"true"})),
        _own(_body(ID=bytes(16), MetaSys=_INLINE | {"X-Minio-Internal-Transition-tier": b"a"})),
        _own(pack({"Type": 1, "V2Obj": 1})),
        _own(pack([])),
        b"",
    ],
)
def test_one_that_may_be_taken_otherwise_does_not(content: bytes) -> None:
    with pytest.raises(ValueError, match="kept otherwise"):
        require_one(content)


def test_content_that_is_named_twice_is_not_read() -> None:
    twice = b"\x01\x82" + pack("null") + pack(b"content") + pack("null") + pack(b"another")

    with pytest.raises(ValueError, match="data that cannot be read"):
        read(_file(_object(MetaSys=_INLINE), inline=twice))
