"""Requests are signed as Amazon's own examples are."""

from __future__ import annotations

import calendar

from agent.engines.minio.server.signing import EMPTY_SHA256, Account, path_of, query_of, signed_headers

ACCOUNT = Account(
    "https://examplebucket.s3.amazonaws.com", "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
)
MOMENT = calendar.timegm((2013, 5, 24, 0, 0, 0))


def test_a_get_with_a_header_has_the_signature_of_amazons_example() -> None:
    # "Authenticating Requests: Using the Authorization Header", Example: GET Object.
    headers = signed_headers(
        ACCOUNT,
        "GET",
        "/test.txt",
        query="",
        headers={"Range": "bytes=0-9"},
        payload_sha256=EMPTY_SHA256,
        seconds=MOMENT,
    )

    assert headers["authorization"].endswith(
        "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, "
        "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    )


def test_a_get_with_a_query_has_the_signature_of_amazons_example() -> None:
    # Example: Get Bucket (List Objects).
    headers = signed_headers(
        ACCOUNT,
        "GET",
        "/",
        query=query_of({"prefix": "J", "max-keys": "2"}),
        headers={},
        payload_sha256=EMPTY_SHA256,
        seconds=MOMENT,
    )

    assert headers["authorization"].endswith(
        "Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
    )


def test_names_are_escaped_but_for_their_slashes() -> None:
    assert path_of("b", "a b/ü+~.txt") == "/b/a%20b/%C3%BC%2B~.txt"
    assert query_of({"key-marker": "a/b c", "a": ""}) == "a=&key-marker=a%2Fb%20c"


def test_an_account_does_not_show_its_password() -> None:
    assert ACCOUNT.password not in repr(ACCOUNT)
