"""What the app's account may not see of its database: an export that lacks it is none, as far as anybody can tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.recipes.mariadb import MariadbRecipe
from common.errors import AppUnavailableError, SourceUnreadableError
from tests.fakes.imports import NotedProgress
from tests.fixtures.mariadb_apps import MariadbApp
from tools.servers.mysql import MysqlServer, mysql

PARTS = """
CREATE TABLE log (t text); CREATE TABLE secret (a int PRIMARY KEY); CREATE VIEW v AS SELECT * FROM secret;
CREATE TRIGGER noted AFTER INSERT ON secret FOR EACH ROW INSERT INTO log VALUES ('t'); CREATE PROCEDURE p() SELECT 1;
CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO SET @x = 1;
"""
SEEING = "SELECT, SHOW VIEW, EVENT, LOCK TABLES"
CHANGING = f"{SEEING}, INSERT, CREATE, DROP, ALTER, CREATE VIEW, CREATE ROUTINE, ALTER ROUTINE"
"""All but TRIGGER."""


def on(database: str, grants: str) -> list[str]:
    """Grants that name it, in other letters and as the very name, too."""
    exact = database.replace("_", "\\_")
    return grants.format(shop=database, SHOP=database.upper(), exact=exact).split("; ")


def reading(shop: MariadbApp, grants: str, **changes: object) -> MariadbRecipe:
    """The recipe with an account that has these rights alone."""
    user = f"{shop.database}_reader"
    shop.server.sql(
        f"CREATE USER '{user}'@'%' IDENTIFIED BY '{shop.password}';"
        + "".join(f"GRANT {rights} TO '{user}'@'%';" for rights in on(shop.database, grants))
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
        ("INSERT, TRIGGER, EVENT, EXECUTE, LOCK TABLES ON {shop}.*; SELECT ON {shop}.log", "table secret."),
        (f"ALL ON `shop%`.*; {SEEING} ON `{{exact}}`.*", "procedure p, trigger noted."),
        (f"ALL ON `{{SHOP}}`.*; {SEEING} ON `{{shop}}`.*", "procedure p, trigger noted."),
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


@pytest.mark.parametrize(
    "granted",
    [
        f"ALL ON `shop%`.*; {SEEING} ON `{{exact}}`.*",
        f"ALL ON `{{SHOP}}`.*; {SEEING} ON `{{shop}}`.*",
        f"{SEEING}, TRIGGER ON `s%`.*",
    ],
)
async def test_a_grant_proves_nothing_where_one_that_names_the_database_more_exactly_counts(
    granted: str, shop_of_either: MariadbApp
) -> None:
    shop = shop_of_either
    recipe = reading(shop, granted, admin_user="")

    (warning,) = (await shop.export(recipe=recipe)).warnings

    lacking = "EXECUTE" if "TRIGGER" in granted else "TRIGGER, EXECUTE"
    assert f"GRANT {lacking} ON `{shop.database}`.* TO it" in warning


@pytest.mark.parametrize(
    ("granted", "lacking"),
    [
        ("PROCESS ON *.*", "TRIGGER, EXECUTE"),
        ("TRIGGER, EXECUTE ON {shop}.*", ""),
        ("ALL ON *.*", ""),
        ("TRIGGER, EXECUTE ON other.*", "TRIGGER, EXECUTE"),
    ],
)
async def test_a_role_proves_what_it_gives_and_no_more(granted: str, lacking: str, shop_of_either: MariadbApp) -> None:
    shop = shop_of_either
    recipe = reading(shop, f"{SEEING} ON {{shop}}.*", admin_user="")
    user, inner, outer = (f"{shop.database}_{name}" for name in ("reader", "inner", "outer"))
    whose = f"{'TO' if isinstance(shop.server, MysqlServer) else 'FOR'} '{user}'@'%'"
    shop.server.sql(
        f"CREATE ROLE {inner}; CREATE ROLE {outer}; GRANT {inner} TO {outer}; GRANT {outer} TO '{user}'@'%';"
        f"SET DEFAULT ROLE {outer} {whose}; GRANT {granted.format(shop=shop.database)} TO {inner}"
    )

    warnings = (await shop.export(recipe=recipe)).warnings

    assert len(warnings) == (1 if lacking else 0)
    assert all(f"GRANT {lacking} ON `{shop.database}`.* TO it" in warning for warning in warnings)


async def test_what_mysql_takes_back_for_one_database_is_not_granted_there(tmp_path: Path) -> None:
    with MysqlServer(mysql(), settings={"partial_revokes": "ON"}) as server:
        shop = MariadbApp(server, tmp_path / "work")
        shop.sql(PARTS)
        user = f"{shop.database}_reader"
        recipe = reading(shop, "ALL ON *.*")
        server.sql(f"REVOKE TRIGGER ON {shop.database}.* FROM '{user}'@'%'")

        described = await recipe.describe()
        exported = await shop.export(recipe=shop.recipe_with(user=user, admin_user=""))

    assert described.can_export.obstacle.endswith("so an export would not be whole: trigger noted.")
    (warning,) = exported.warnings
    assert f"GRANT TRIGGER ON `{shop.database}`.* TO it" in warning


@pytest.mark.parametrize(
    "grants", [f"ALL ON `shop%`.*; {CHANGING} ON `{{exact}}`.*", f"ALL ON `{{SHOP}}`.*; {CHANGING} ON `{{shop}}`.*"]
)
async def test_nothing_is_imported_where_the_account_of_the_app_may_not_see_what_it_would_have_to_put_back(
    grants: str, shop_of_either: MariadbApp
) -> None:
    shop = shop_of_either
    exported = await shop.export()
    shop.sql("CREATE TABLE t (n int); CREATE TRIGGER kept BEFORE INSERT ON t FOR EACH ROW SET NEW.n = 5")
    user = f"'{shop.user}'@'%'"
    shop.server.sql(
        f"REVOKE ALL ON {shop.database}.* FROM {user};"
        + "".join(f"GRANT {rights} TO {user};" for rights in on(shop.database, grants))
    )

    described = await shop.recipe.describe()
    with pytest.raises(AppUnavailableError) as refusal:
        await shop.import_(exported.content)

    assert refusal.value.text == described.can_import.obstacle
    assert f"GRANT TRIGGER ON `{shop.database}`.* TO it" in refusal.value.text


async def test_nothing_is_imported_by_an_admin_who_may_not_see_all(shop: MariadbApp) -> None:
    exported = await shop.export()
    shop.server.sql(f"REVOKE TRIGGER, EXECUTE ON {shop.database}.* FROM '{shop.admin}'@'%'")

    with pytest.raises(AppUnavailableError, match=f"GRANT TRIGGER, EXECUTE ON `{shop.database}`.\\* TO it"):
        await shop.import_(exported.content)


@pytest.mark.parametrize("grants", [f"{SEEING}, TRIGGER, CREATE ROUTINE ON {{shop}}.*", "ALL ON *.*"])
async def test_rights_on_the_whole_database_are_enough(grants: str, shop: MariadbApp) -> None:
    shop.sql("CREATE TABLE log (t text)")
    recipe = reading(shop, grants, admin_user="")

    exported = await shop.export(recipe=recipe)

    assert exported.warnings == []
