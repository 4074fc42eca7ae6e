"""What an archive says of itself may come from anybody."""

from __future__ import annotations

import datetime as dt

import pytest

from common.errors import ArchiveError, ArchiveIncompatibleError, ArchiveWrongKindError
from common.headers import FORMAT_VERSION, ArchiveHeader


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b'{"counts":{"tables":-1}}', id="a negative count"),
        pytest.param(b'{"counts":{"tables":10000000000000000000000000}}', id="a count beyond the wire's"),
        pytest.param(b'{"format_version":4294967296}', id="a version beyond the wire's"),
        pytest.param(b'{"size_bytes":-1}', id="a negative size"),
        pytest.param(b'{"created_at":"0001-01-01T00:00:00+23:59"}', id="a moment before the first year"),
        pytest.param(b'{"created_at":"9999-12-31T23:59:59-23:59"}', id="a moment after the last year"),
    ],
)
def test_a_header_that_no_wire_carries_is_refused_where_it_is_read(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"at `\$|created_at"):
        ArchiveHeader.from_json(text)


def test_a_header_at_the_limits_comes_through() -> None:
    header = ArchiveHeader(
        format_version=2**32 - 1,
        size_bytes=2**63 - 1,
        counts={"rows": 2**63 - 1},
        created_at=dt.datetime(1, 1, 1, tzinfo=dt.UTC),
    )

    assert ArchiveHeader.from_proto(ArchiveHeader.from_json(header.to_json()).to_proto()) == header


def test_what_is_kept_of_a_header_is_bounded() -> None:
    header = ArchiveHeader(
        engine="x" * 5000,
        counts={f"kind {number}": number for number in range(1000)},
        details={"n" * 5000: "v" * 5000},
    )

    kept = header.abridged()

    assert len(kept.to_json()) < 10_000
    assert ArchiveHeader(engine="PostgreSQL", counts={"rows": 1}).abridged() == ArchiveHeader(
        engine="PostgreSQL", counts={"rows": 1}
    )


@pytest.mark.parametrize(
    ("header", "refusal", "text"),
    [
        (ArchiveHeader(recipe="redis"), ArchiveWrongKindError, "of recipe 'redis'; this app takes those of 'volume'"),
        (ArchiveHeader(format_version=FORMAT_VERSION + 1), ArchiveIncompatibleError, "of format version 2"),
    ],
    ids=["another recipe's", "of a later version"],
)
def test_what_an_app_cannot_take_is_told_by_its_header(
    header: ArchiveHeader, refusal: type[ArchiveError], text: str
) -> None:
    with pytest.raises(refusal, match=text):
        header.require_importable("volume")


@pytest.mark.parametrize("header", [ArchiveHeader(), ArchiveHeader(recipe="volume", format_version=FORMAT_VERSION)])
def test_an_export_of_the_same_recipe_or_of_somebody_else_is_taken(header: ArchiveHeader) -> None:
    header.require_importable("volume")
