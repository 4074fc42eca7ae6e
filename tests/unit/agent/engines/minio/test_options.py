"""What a caller may choose."""

from __future__ import annotations

import pytest

from agent.engines.minio.directory.options import of_import
from common.errors import InvalidRequestError


@pytest.mark.parametrize("name", ["bucket", "root"])
def test_an_empty_name_is_not_taken_for_none(name: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"option {name} is empty"):
        of_import({name: ""})


def test_without_a_bucket_all_are_wanted() -> None:
    defaults = {"users": "archive", "locks": "refuse", "settings": "refuse", "tiered": "refuse"}

    assert of_import({}) == {"bucket": "", "root": "", **defaults}
    assert of_import({"bucket": "uploads"})["bucket"] == "uploads"
