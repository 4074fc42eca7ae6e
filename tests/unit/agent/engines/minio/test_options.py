"""What a caller may choose."""

from __future__ import annotations

import pytest

from agent.engines.minio.options import of_import
from common.errors import InvalidRequestError


def test_an_empty_name_of_a_bucket_is_not_taken_for_all_buckets() -> None:
    with pytest.raises(InvalidRequestError, match="option bucket is empty"):
        of_import({"bucket": ""})


def test_without_a_bucket_all_are_wanted() -> None:
    assert of_import({}) == {"bucket": "", "users": "archive", "locks": "refuse", "settings": "refuse"}
    assert of_import({"bucket": "uploads"})["bucket"] == "uploads"
