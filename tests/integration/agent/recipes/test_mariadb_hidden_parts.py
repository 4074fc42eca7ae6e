"""What the app's account may not see of its database: an export that lacks it is none, as far as anybody can tell."""

from __future__ import annotations

import pytest

from agent.recipes.mariadb import MariadbRecipe
from common.errors import SourceUnreadableError
from tests.fakes.imports import NotedProgress
from tests.fixtures.mariadb_apps import MariadbApp

PARTS = """
CREATE TABLE log (t text); CREATE TABLE secret (a int PRIMARY KEY); CREATE VIEW v AS SELECT * FROM secret;
CREATE TRIGGER noted AFTER INSERT ON secret FOR EACH ROW INSERT INTO log VALUES ('t'); CREATE PROCEDURE p() SELECT 1;
CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO SET @x = 1;
"""
SEEING = "SELECT, SHOW VIEW, EVENT, LOCK TABLES"


def reading(shop: MariadbApp, grants: str, **changes: object) -> MariadbRecipe:
    """The recipe with an account that has these rights alone."""
    user = f"{shop.database}_reader"
    shop.server.sql(
        f"CREATE USER '{user}'@'%' IDENTIFIED BY '{shop.password}';"
        + "".join(f"GRANT {rights} TO '{user}'@'%';" for rights in grants.format(shop=shop.database).split("; "))
    )
    return shop.recipe_with(user=user, **changes)


@pytest.mark.parametrize(
    ("grants", "hidden"),
    [
        (f"{SEEING} ON {{shop}}.*", "procedure p, trigger noted."),
        (f"{SEEING}, TRIGGER ON {{shop}}.*", "procedure p."),
        (
            "EVENT, LOCK TABLES ON {shop}.*; SELECT, TRIGGER ON {shop}.log",
            "procedure p, table secret, trigger noted, view v.",
        ),
        ("SELECT ON {shop}.log", "event e, procedure p, table secret, trigger noted, view v."),
    ],
)
async def test_an_account_that_may_not_see_all_makes_no_export_and_no_fingerprint(
    grants: str, hidden: str, shop_of_either: MariadbApp
) -> None:
    shop = shop_of_either
    shop.sql(PARTS)
    recipe = reading(shop, grants)

    described = await recipe.describe()

    assert described.can_export.obstacle.endswith(f"so an export would not be whole: {hidden}")
    with pytest.raises(SourceUnreadableError, match="may not see all of database") as refusal:
        await shop.export(recipe=recipe)
    assert refusal.value.text == described.can_export.obstacle
    with pytest.raises(SourceUnreadableError):
        await recipe.fingerprint(NotedProgress())


async def test_nothing_is_hidden_where_there_is_nothing_to_be_seen(shop_of_either: MariadbApp) -> None:
    shop = shop_of_either
    shop.sql("CREATE TABLE log (t text)")
    recipe = reading(shop, f"{SEEING} ON {{shop}}.*")

    exported, described = await shop.export(recipe=recipe), await recipe.describe()

    assert (exported.warnings, described.can_export.obstacle, described.warnings) == ([], "", ())


@pytest.mark.parametrize("changes", [{"admin_user": ""}, {"admin_user": "nobody"}, {"admin_password_file": "/none"}])
async def test_where_nobody_can_tell_whether_all_is_seen_a_warning_says_so(
    changes: dict[str, object], shop: MariadbApp
) -> None:
    shop.sql(PARTS)
    recipe = reading(shop, f"{SEEING} ON {{shop}}.*", **changes)

    exported, described = await shop.export(recipe=recipe), await recipe.describe()

    assert described.can_export.obstacle == ""
    (warning,) = exported.warnings
    assert described.warnings == (warning,)
    assert f"GRANT TRIGGER, EXECUTE ON `{shop.database}`.* TO it" in warning


@pytest.mark.parametrize("grants", [f"{SEEING}, TRIGGER, CREATE ROUTINE ON {{shop}}.*", "ALL ON *.*"])
async def test_rights_on_the_whole_database_are_enough(grants: str, shop: MariadbApp) -> None:
    shop.sql("CREATE TABLE log (t text)")
    recipe = reading(shop, grants, admin_user="")

    exported = await shop.export(recipe=recipe)

    assert exported.warnings == []
