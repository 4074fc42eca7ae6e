"""Fingerprints are equal for equal content and name what differs."""

from __future__ import annotations

from common.fingerprints import MOST_PARTS, Fingerprint

SHOP = Fingerprint(scheme="shop/1", parts={"table a": "2 rows, 11", "table b": "0 rows, 0"})


def test_the_order_of_parts_does_not_matter() -> None:
    turned = Fingerprint(scheme="shop/1", parts=dict(reversed(list(SHOP.parts.items()))))

    assert turned.sha256 == SHOP.sha256
    assert SHOP.differences(turned) == []


def test_parts_that_differ_or_are_missing_are_named() -> None:
    other = Fingerprint(scheme="shop/1", parts={"table a": "3 rows, 12", "table c": "0 rows, 0"})

    assert other.sha256 != SHOP.sha256
    assert SHOP.differences(other) == [
        "table a: 2 rows, 11 here, 3 rows, 12 there",
        "table b: 0 rows, 0 here, nothing there",
        "table c: nothing here, 0 rows, 0 there",
    ]


def test_fingerprints_of_two_schemes_are_never_the_same() -> None:
    other = Fingerprint(scheme="shop/2", parts=SHOP.parts)

    assert other.sha256 != SHOP.sha256
    assert "cannot be compared" in SHOP.differences(other)[0]


def test_too_many_parts_are_told_in_groups_that_are_the_same_on_every_side() -> None:
    many = {f"table {number}": "1 rows, 0a" for number in range(1000)}
    turned = dict(reversed(list(many.items())))

    fingerprint = Fingerprint.of("shop/1", many)
    changed = Fingerprint.of("shop/1", {**many, "table 7": "2 rows, 0b"})

    assert len(fingerprint.parts) <= MOST_PARTS
    assert Fingerprint.of("shop/1", turned) == fingerprint
    assert len(fingerprint.differences(changed)) == 1


def test_a_fingerprint_survives_the_wire_and_an_archive() -> None:
    assert Fingerprint.from_proto(SHOP.to_proto()) == SHOP
    assert Fingerprint.from_json(SHOP.to_json()) == SHOP
