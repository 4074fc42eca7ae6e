"""Announced digests, RFC 9530."""

from __future__ import annotations

import pytest

from common.errors import InvalidRequestError
from controller.api.digests import expected_digests

# printf hello | sha256sum, and the same in base64
HELLO_HEX = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
HELLO = "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="


@pytest.mark.parametrize(
    "value", [f"sha-256=:{HELLO}:", f"sha-512=:AAAA:, sha-256=:{HELLO}:", f"sha-256=:{HELLO}:;a=1, md5=:AAAA:"]
)
def test_a_sha_256_is_found_among_others(value: str) -> None:
    assert expected_digests({"Repr-Digest": value}, "Repr-Digest") == [HELLO_HEX]


def test_nothing_is_expected_where_nothing_is_announced() -> None:
    assert expected_digests({}, "Repr-Digest", "Content-Digest") == []


def test_both_headers_count() -> None:
    headers = {"Repr-Digest": f"sha-256=:{HELLO}:", "Content-Digest": f"sha-256=:{HELLO}:"}

    assert expected_digests(headers, "Repr-Digest", "Content-Digest") == [HELLO_HEX, HELLO_HEX]


@pytest.mark.parametrize(
    "value", ["", "sha-256", f"sha-256={HELLO}", "sha-256=:AAAA:", "sha-256=:A:", "sha-512=:AAAA:", HELLO_HEX]
)
def test_what_cannot_be_checked_is_refused_instead_of_ignored(value: str) -> None:
    with pytest.raises(InvalidRequestError, match="Repr-Digest"):
        expected_digests({"Repr-Digest": value}, "Repr-Digest")
