"""The recipe's table of the configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.engines.pg.server.settings import read_settings
from agent.recipes.base import ExportOptions
from agent.recipes.postgresql import PostgresqlRecipe
from common.errors import AppUnavailableError, InvalidRequestError
from tests.fakes.imports import NotedProgress, surroundings


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ({"database": "app"}, "user"),
        ({"database": "app", "user": "app", "pasword_file": "x"}, "pasword_file"),
        ({"database": "app", "user": "app", "port": "5432"}, "port"),
        ({"database": "app", "user": "app", "port": 0}, "port"),
        ({"database": "app", "user": "app", "load_sessions": 100}, "load_sessions"),
    ],
)
def test_what_is_wrong_is_named(table: dict[str, object], named: str) -> None:
    with pytest.raises(InvalidRequestError, match=named):
        read_settings(table)


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_password_file_may_end_with_a_line_end_and_is_read_each_time(tmp_path: Path, ending: str) -> None:
    file = tmp_path / "password"
    settings = read_settings({"database": "app", "user": "app", "password_file": str(file)})

    file.write_bytes(f" first ö{ending}".encode())
    first = settings.app_login().password
    file.write_bytes(b"second")

    assert (first, settings.app_login().password) == (" first ö", "second")


def test_a_password_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    settings = read_settings({"database": "app", "user": "app", "password_file": str(tmp_path / "missing")})

    with pytest.raises(AppUnavailableError, match=r"missing with a secret cannot be read: No such file"):
        settings.app_login()


def test_a_login_does_not_show_its_password() -> None:
    login = read_settings({"database": "app", "user": "app"}).app_login()

    assert "hidden" not in repr(login.__class__(login.host, login.port, "app", "app", "hidden"))


def test_the_app_in_the_maintenance_database_is_renamed_from_another_one() -> None:
    plain = read_settings({"database": "app", "user": "app", "admin_user": "root"})
    same = read_settings({"database": "postgres", "user": "app", "admin_user": "root"})

    assert plain.safe_maintenance_database == "postgres"
    assert same.safe_maintenance_database == "template1"
    admin = same.admin_login()
    assert admin is not None
    assert (admin.user, admin.database, admin.password) == ("root", "template1", None)


async def test_an_empty_option_is_not_taken_for_the_database_of_the_settings(tmp_path: Path) -> None:
    recipe = PostgresqlRecipe(surroundings(tmp_path, {"database": "app", "user": "app"}))
    options = ExportOptions(recipe.export_formats[0], "shop.db", "app.sql.gz", {"database": ""})

    with pytest.raises(InvalidRequestError, match="option database is empty"):
        async with recipe.export_data(options, NotedProgress()):
            pass
