"""What all recipes read of their configuration alike."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from agent.engines.configured import checked, read_secret
from common.errors import AppUnavailableError, InvalidRequestError


class _Settings(msgspec.Struct, forbid_unknown_fields=True):
    port: int = 1


def test_a_secret_is_read_from_a_file_without_its_line_end(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("a key \r\n")

    assert read_secret(str(tmp_path / "key")) == "a key "
    assert read_secret("") == ""


def test_a_secret_that_cannot_be_read_is_named_and_not_told(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"hunter2\xff")

    with pytest.raises(AppUnavailableError, match=r"none with a secret cannot be read: No such file"):
        read_secret(str(tmp_path / "none"))
    with pytest.raises(AppUnavailableError, match=r"bytes with a secret cannot be read: it is no text") as refused:
        read_secret(str(tmp_path / "bytes"))
    assert "hunter" not in refused.value.text


@pytest.mark.parametrize(("table", "match"), [({"port": "x"}, "port"), ({"prot": 1}, "prot")])
def test_wrong_settings_are_named_with_the_recipe(table: dict[str, object], match: str) -> None:
    with pytest.raises(InvalidRequestError, match=rf"settings of recipe paper are wrong: .*{match}"):
        checked(table, _Settings, recipe="paper")
