"""A file is loaded with a role's own rights only where its code can do no harm that nobody sees or takes back."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

import pytest

from common.errors import AppUnavailableError, ArchiveRefusedError
from tests.fixtures.variants import variants
from tests.integration.agent.engines.pg.apps import PostgresApp
from tests.integration.agent.engines.pg.conftest import MakeApp
from tests.integration.agent.engines.pg.traps import with_trap

MakeMember = Callable[..., PostgresApp]
GROUPS = {
    "one": ["CREATE ROLE {role}_group", "GRANT {role}_group TO {role}"],
    "one that is a member of another": [
        "CREATE ROLE {role}_group",
        "CREATE ROLE {role}_upper",
        "GRANT {role}_upper TO {role}_group",
        "GRANT {role}_group TO {role}",
    ],
    "the server's own, for files": ["GRANT pg_write_server_files TO {role}"],
    "replication": ["ALTER ROLE {role} REPLICATION"],
}


@pytest.fixture
def make_member(make_app: MakeApp) -> Iterator[MakeMember]:
    """An app, with one row, whose role is given more by the superuser's statements."""
    made: list[PostgresApp] = []

    def make(statements: Iterable[str], *, major: int = 17, rights: str = "CREATEDB") -> PostgresApp:
        app = make_app(major, rights=rights, has_admin=False)
        made.append(app)
        app.run("CREATE TABLE t (a int); INSERT INTO t VALUES (1)", as_app=True)
        for statement in statements:
            app.run(statement.format(**vars(app)), on="postgres")
        return app

    yield make
    for app in made:
        for name in ("group", "upper"):
            app.run(f"DROP ROLE IF EXISTS {app.role}_{name}", on="postgres")


@variants("major", [13, 18], kept=[18])
@pytest.mark.parametrize("statements", GROUPS.values(), ids=list(GROUPS))
async def test_a_role_that_reaches_beyond_itself_loads_no_file_beside_with_its_own_rights(
    make_member: MakeMember, major: int, statements: list[str]
) -> None:
    app = make_member(statements, major=major)
    archive = await app.export()

    description = await app.recipe.describe()
    with pytest.raises(AppUnavailableError) as refused:
        await app.stage(archive)

    assert refused.value.text == description.can_import.obstacle
    assert description.can_export.is_possible
    assert app.left_over() == []
    [taking] = [one for one in re.findall(r"[^:;]*;", refused.value.text) if "REVOKE" in one or "NOREPL" in one]
    assert f'ALTER ROLE "{app.role}" CREATEROLE;' in refused.value.text
    app.run(taking, on="postgres")
    await app.bring_in(archive)


async def test_a_role_with_rights_of_the_server_that_change_nothing_outside_loads_a_file(
    make_member: MakeMember,
) -> None:
    app = make_member(["GRANT pg_monitor, pg_signal_backend, pg_read_all_data TO {role}"])

    await app.bring_in(await app.export())


async def test_what_was_imported_before_the_role_became_a_member_can_be_undone(make_member: MakeMember) -> None:
    app = make_member([])
    record = await app.bring_in(await app.export())
    for statement in GROUPS["one"]:
        app.run(statement.format(**vars(app)), on="postgres")

    await app.recipe.undo(record, app.progress)

    assert app.left_over() == []


@pytest.mark.parametrize("group", ["the server's own, for files", "replication"])
async def test_a_role_whose_reach_no_transaction_takes_back_loads_no_file_within_its_database(
    make_member: MakeMember, group: str
) -> None:
    app = make_member([], rights="")
    record, _ = await app.stage(await app.export())
    for statement in GROUPS[group]:
        app.run(statement.format(**vars(app)), on="postgres")

    with pytest.raises(AppUnavailableError, match="could do harm beyond") as staged:
        await app.stage(await app.export())
    with pytest.raises(AppUnavailableError, match="could do harm beyond"):
        await app.recipe.restore(record, app.progress)

    assert "CREATEDB CREATEROLE;" in staged.value.text


@variants("major", [13, 18], kept=[18])
@variants(
    "harm",
    [
        "ALTER ROLE {role}_group PASSWORD 'mine'",
        "ALTER ROLE {role}_group SET search_path = evil",
        "CREATE ROLE {role}_upper",
    ],
)
async def test_a_file_that_does_harm_to_a_group_of_the_role_is_taken_back_within_its_database(
    make_member: MakeMember, major: int, harm: str
) -> None:
    app = make_member([*GROUPS["one"], "ALTER ROLE {role}_group CREATEROLE"], major=major, rights="")
    query = f"SELECT to_jsonb(r) FROM pg_authid r WHERE starts_with(rolname, '{app.role}')"
    before = app.run(query, on="postgres")
    app.run("DROP TABLE t", as_app=True)
    role = "SET LOCAL ROLE {role}_group"
    record, _ = await app.stage(await with_trap(app, [role, harm, "RESET ROLE"]))

    with pytest.raises(ArchiveRefusedError, match="changed roles or databases"):
        await app.recipe.restore(record, app.progress)

    assert app.run(query, on="postgres") == before
    assert app.run("SELECT a FROM public.t", as_app=True) == [(1,)]
