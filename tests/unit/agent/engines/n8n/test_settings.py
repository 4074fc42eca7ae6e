"""The recipe's table in the agent's configuration, and what callers may ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.engines.n8n.settings import read_settings
from agent.engines.n8n.wishes import read_export_wishes, read_import_wishes
from common.errors import InvalidRequestError

FOLDER = {"directory": "/home/node/.n8n"}


@pytest.mark.parametrize(
    ("table", "match"),
    [
        ({}, "absolute path"),
        ({"directory": "n8n"}, "absolute path"),
        ({"directory": "/"}, "absolute path"),
        ({**FOLDER, "database_file": "../x"}, "name of a file"),
        ({**FOLDER, "exclude": [""]}, "pattern"),
        ({**FOLDER, "diretory": "/x"}, "diretory"),
        ({**FOLDER, "seal_recipients": "age1"}, "array"),
    ],
)
def test_wrong_settings_are_named(table: dict[str, object], match: str) -> None:
    with pytest.raises(InvalidRequestError, match=match):
        read_settings(table)


def test_an_n8n_on_postgresql_may_be_without_a_folder() -> None:
    assert read_settings({"postgresql": {"database": "n8n", "user": "n8n"}}).folder is None


def test_the_callers_wish_goes_before_the_settings(tmp_path: Path) -> None:
    (tmp_path / "passphrase").write_text("of the settings")
    settings = read_settings(
        {**FOLDER, "seal_recipients": ["age1set"], "seal_passphrase_file": str(tmp_path / "passphrase")}
    )

    assert read_export_wishes({}, settings).recipients == ("age1set",)
    assert read_export_wishes({"recipient": "age1a,age1b"}, settings).recipients == ("age1a", "age1b")
    assert read_export_wishes({"passphrase": "mine"}, settings).passphrase == "mine"
    assert not read_export_wishes({"passphrase": "mine"}, settings).recipients
    assert not read_export_wishes({"key": "omit"}, settings).is_sealed
    assert read_import_wishes({}, settings).passphrase == "of the settings"
    assert read_import_wishes({"passphrase": "mine"}, settings).passphrase == "mine"


@pytest.mark.parametrize("option", ["key", "passphrase", "recipient"])
def test_an_empty_option_of_an_export_does_not_leave_the_key_out_without_a_word(option: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"option {option} is empty"):
        read_export_wishes({option: ""}, read_settings(FOLDER))


@pytest.mark.parametrize("option", ["identity", "passphrase", "encryption_key"])
def test_an_empty_option_of_an_import_is_refused(option: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"option {option} is empty"):
        read_import_wishes({option: ""}, read_settings(FOLDER))
