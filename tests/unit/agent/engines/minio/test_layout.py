"""What of a drive is taken for a bucket."""

from __future__ import annotations

import pytest

from agent.engines.minio.drive.layout import is_bucket_name


@pytest.mark.parametrize(
    "name", ["abc", "a.b", "a-b.c--d", "1.2.3", "1.2.3.4.5", "1.2.3.a", "xn--a", "123", "x" * 63, "0-0.0-0"]
)
def test_a_name_that_minio_takes_is_a_buckets(name: str) -> None:
    assert is_bucket_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *("", "a", "ab", "x" * 64, "1.2.3.4", "999.0.0.1", "a.-b", "a-.b", "a..b", ".ab", "ab.", "-ab", "ab-"),
        *("Abc", "a_b", "b\u00fccket", "\u0661\u0662\u0663", "abc\n", "minio", ".minio.sys", "a/b"),
    ],
)
def test_a_name_that_minio_refuses_is_none(name: str) -> None:
    assert not is_bucket_name(name)
