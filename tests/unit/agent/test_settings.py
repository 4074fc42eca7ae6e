from __future__ import annotations

from pathlib import Path

import pytest

from agent.settings import read_settings
from common.settings_files import SettingsError

SMALLEST = """
app_id = "shop.db"
recipe = "postgresql"
[controller]
enrolment = "127.0.0.1:8444"
renewal = "127.0.0.1:8443"
"""
FULL = """
app_id = "shop.db"
recipe = "volume"
listen = "127.0.0.1:0"
state_directory = "state"
keep_previous_hours = 1
[controller]
enrolment = "127.0.0.1:8444"
renewal = "127.0.0.1:8443"
join_token_file = "/run/token"
[app]
stop = ["systemctl", "stop", "shop"]
start = ["systemctl", "start", "shop"]
[limits]
archive_bytes = 1000
[recipe_settings]
directory = "/srv/shop"
nested = { anything = [1, 2] }
"""


def write(directory: Path, text: str) -> Path:
    path = directory / "agent.toml"
    path.write_text(text)
    return path


def test_what_is_not_given_has_a_default(tmp_path: Path) -> None:
    settings = read_settings(write(tmp_path, SMALLEST))

    assert settings.keep_previous_hours == 72
    assert settings.app is None
    assert settings.limits.entries == 20_000_000
    assert settings.controller.join_token_file is None


def test_every_table_is_read(tmp_path: Path) -> None:
    settings = read_settings(write(tmp_path, FULL))

    assert settings.app is not None
    assert settings.app.stop == ("systemctl", "stop", "shop")
    assert settings.limits.archive_bytes == 1000
    assert settings.controller.join_token_file == Path("/run/token")
    assert settings.recipe_settings == {"directory": "/srv/shop", "nested": {"anything": [1, 2]}}


def test_relative_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    settings = read_settings(write(tmp_path, FULL))

    assert settings.state_directory == tmp_path / "state"


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        pytest.param('recipe = "volume"', 'recipe = "volume"\nreceipe = "x"', "receipe", id="unknown key"),
        pytest.param("archive_bytes = 1000", "archive_byte = 1000", "limits.archive_byte", id="unknown key in a table"),
        pytest.param("archive_bytes = 1000", 'archive_bytes = "1 GB"', "limits.archive_bytes", id="text for a number"),
        pytest.param("archive_bytes = 1000", "archive_bytes = 0", "limits.archive_bytes", id="limit of nothing"),
        pytest.param('recipe = "volume"', "", "recipe", id="missing key"),
        pytest.param('renewal = "127.0.0.1:8443"', "", "renewal", id="missing key in a table"),
        pytest.param('"127.0.0.1:0"', '"127.0.0.1"', "listen", id="no port"),
        pytest.param('"127.0.0.1:0"', '"127.0.0.1:70000"', "listen", id="port out of range"),
        pytest.param('"shop.db"', '"Shop.db"', "Shop.db", id="upper case in the app's id"),
        pytest.param('"shop.db"', '"shop"', "'shop'", id="no workspace in the app's id"),
        pytest.param('["systemctl", "stop", "shop"]', '"systemctl stop shop"', "app.stop", id="a shell line"),
        pytest.param('["systemctl", "stop", "shop"]', "[]", "app", id="an empty command"),
        pytest.param("keep_previous_hours = 1", "keep_previous_hours = -1", "keep_previous_hours", id="negative time"),
        pytest.param('"state"', "7", "state_directory", id="number for a path"),
        pytest.param("[limits]", "[limits", "not TOML", id="no TOML"),
    ],
)
def test_an_error_names_the_file_and_the_key(tmp_path: Path, old: str, new: str, named: str) -> None:
    path = write(tmp_path, FULL.replace(old, new))

    with pytest.raises(SettingsError) as caught:
        read_settings(path)

    assert str(path) in str(caught.value)
    assert named in str(caught.value)


def test_a_file_that_is_not_there_is_a_settings_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.toml cannot be read"):
        read_settings(tmp_path / "nowhere.toml")
