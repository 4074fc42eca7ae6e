"""An n8n whose agent may make databases but no roles: what an upload has in it runs with the rights of n8n's own role.

What such code may do at all is in tests/integration/agent/engines/pg/test_rights.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from agent.engines.pg.imports import outside
from agent.engines.pg.server.names import kept_name
from agent.recipes.base import Recovered
from agent.recipes.n8n import N8nRecipe
from agent.states import Failure
from agent.steps import Unwatched
from common.errors import AppUnavailableError, ArchiveRefusedError, ServiceError
from tests.contract import crashing
from tests.contract.agents import Agent, Launch
from tests.contract.app import AppSwitch
from tests.fakes.imports import MemoryRecord
from tests.fixtures.n8n_data import NEW_KEY
from tests.fixtures.variants import variants
from tests.integration.agent.recipes.n8n_apps import MakePair, Pair, make_pair

__all__ = ["make_pair"]
TAKE_THE_KEPT_NAME = (
    "DO $do$ BEGIN EXECUTE format('ALTER DATABASE {database} RENAME TO %I', "
    "replace(current_database(), '_new_', '_kept_')); END $do$"
)


@pytest.fixture
def source(make_pair: MakePair) -> Pair:
    return make_pair("source")


@pytest.fixture
def target(make_pair: MakePair) -> Pair:
    pair = make_pair(
        "target", key=NEW_KEY, mark="present", workflows=1, credentials=1, has_admin=False, rights="CREATEDB"
    )
    # Written out, as the server does it where an owner changes.
    pair.database.run("GRANT CONNECT ON DATABASE {database} TO {role}".format(**vars(pair.database)), on="postgres")
    return pair


def function(name: str, kind: str, statements: Sequence[str], result: str) -> str:
    harm = " ".join(f"EXECUTE $harm${one}$harm$;" for one in statements)
    returns = f"RETURNS {kind} LANGUAGE plpgsql AS $fun$ BEGIN {harm} RETURN {result}; END $fun$"
    return f"CREATE OR REPLACE FUNCTION public.{name} {returns}"


def lay_trap(source: Pair, name: str, statements: Sequence[str]) -> None:
    """A table whose row runs something where it is loaded."""
    source.database.run(function(f"{name}(int)", "boolean", [], "true"), as_app=True)
    source.database.run(f"CREATE TABLE {name} (a int CHECK (public.{name}(a)))", as_app=True)
    source.database.run(f"INSERT INTO {name} VALUES (1)", as_app=True)
    source.database.run(function(f"{name}(int)", "boolean", statements, "true"), as_app=True)


def launch_for(target: Pair, directory: Path) -> Launch:
    settings = {"directory": str(target.n8n.folder), **target.app.settings}
    return Launch(N8nRecipe, settings, AppSwitch(directory).settings, directory / "state")


async def killed_while_loading(source: Pair, target: Pair, harms: Sequence[str], directory: Path) -> Agent:
    """The next agent, before it starts."""
    file, launch = directory / "hostile.tar", launch_for(target, directory)
    lay_trap(source, "harms", [harm.format(**vars(target.database)) for harm in harms])
    lay_trap(source, "waits", ["SELECT pg_sleep(86400)"])
    file.write_bytes((await source.app.export(key="clear")).content)
    before = target.database.outside()
    is_harmed = lambda: target.database.outside() != before  # noqa: E731  # one line among others
    death = await crashing.killed_once(is_harmed, launch, "stage", "t-1", str(file))
    await death.children_ended()
    return Agent(launch)


def failure_of(agent: Agent) -> Failure:
    state = agent.state("t-1")
    assert state is not None
    assert state.failure is not None
    return state.failure


def require_nothing_left(target: Pair, agent: Agent) -> None:
    target.require_no_leftovers()
    assert [*agent.launch.work_directory.rglob("*")] == []
    assert [*(agent.launch.state_directory / "journal").iterdir()] == []


@variants(
    ("harm", "said"),
    [
        ("ALTER ROLE {role} SET search_path = evil", "setting search_path of role {role}: none became evil"),
        ("ALTER DATABASE {database} RENAME TO mine", "name of database {database}: {database} became mine"),
        (TAKE_THE_KEPT_NAME, "name of database {database}: {database} became mathison_kept_"),
        (
            "ALTER DATABASE {database} OWNER TO pg_database_owner",
            "owner of database {database}: {role} became pg_database_owner",
        ),
    ],
    ids=["setting", "name", "name of the previous database", "owner"],
)
async def test_what_a_file_changed_before_the_agent_was_killed_is_put_back_by_the_next(
    source: Pair, target: Pair, tmp_path: Path, harm: str, said: str
) -> None:
    before, held = target.database.outside(), await target.app.fingerprint()
    secrets = target.n8n.secrets(NEW_KEY)
    agent = await killed_while_loading(source, target, [harm], tmp_path)

    await agent.start()

    failure = failure_of(agent)
    assert "was put back as soon as the agent could" in failure.message
    assert said.format(**vars(target.database)) in failure.message
    assert failure.message.endswith("Nothing was changed.")
    assert target.database.outside() == before
    assert held.differences(await target.app.fingerprint()) == []
    assert target.n8n.secrets(NEW_KEY) == secrets
    require_nothing_left(target, agent)
    await agent.close()


async def test_where_the_killed_agent_is_locked_out_the_import_is_not_forgotten(
    source: Pair, target: Pair, tmp_path: Path
) -> None:
    before, held = target.database.outside(), await target.app.fingerprint()
    role, password = target.database.role, target.database.password
    harms = ["ALTER ROLE {role} SET search_path = evil", "ALTER ROLE {role} PASSWORD 'mine'"]
    agent = await killed_while_loading(source, target, harms, tmp_path)

    await agent.start()
    first = failure_of(agent)
    target.database.run(f"ALTER ROLE {role} PASSWORD '{password}'", on="postgres")
    await agent.transfers.housekeeping.tidy()

    assert f"ALTER ROLE \"{role}\" PASSWORD '…';" in first.next_step
    assert "setting search_path of role" in failure_of(agent).message
    assert target.database.outside() == before
    assert held.differences(await target.app.fingerprint()) == []
    require_nothing_left(target, agent)
    await agent.close()


async def test_what_a_file_does_while_its_secrets_are_encrypted_again_is_put_back(source: Pair, target: Pair) -> None:
    before, held, record = target.database.outside(), await target.app.fingerprint(), MemoryRecord()
    harm = f"ALTER ROLE {target.database.role} SET search_path = evil"
    source.database.run(function("harms()", "trigger", [harm], "NEW"), as_app=True)
    trigger = "CREATE TRIGGER t BEFORE UPDATE ON credentials_entity FOR EACH ROW EXECUTE FUNCTION public.harms()"
    source.database.run(trigger, as_app=True)

    with pytest.raises(ArchiveRefusedError, match="was put back at once"):
        await target.app.stage((await source.app.export(key="clear")).content, record)
    await target.app.recipe.discard(record)

    assert target.database.outside() == before
    assert held.differences(await target.app.fingerprint()) == []
    target.require_no_leftovers()


async def test_database_and_files_stay_though_the_database_could_not_get_its_name_back(
    source: Pair, target: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, record, database = await target.app.fingerprint(), MemoryRecord(), target.database.database
    lay_trap(source, "harms", [TAKE_THE_KEPT_NAME.format(database=database)])
    monkeypatch.setattr(outside, "_ROUNDS", 0)

    with pytest.raises(ArchiveRefusedError, match="could not be put back: name of database"):
        await target.app.stage((await source.app.export(key="clear")).content, record)
    await target.app.recipe.discard(record)

    target.database.run(f"ALTER DATABASE {kept_name(record.key)} RENAME TO {database}", on="postgres")
    assert held.differences(await target.app.fingerprint()) == []
    target.require_no_leftovers()


async def test_what_an_import_made_is_dropped_without_any_right_on_n8ns_database(source: Pair, target: Pair) -> None:
    record = MemoryRecord()
    await target.app.stage((await source.app.export(key="clear")).content, record)
    target.database.run(f"ALTER DATABASE {target.database.database} OWNER TO postgres", on="postgres")

    found = await target.app.recipe.recover(record)
    await target.app.recipe.discard(record)

    assert found is Recovered.PREVIOUS
    target.require_no_leftovers()


async def test_an_import_whose_database_cannot_be_dropped_is_tried_again(
    source: Pair, target: Pair, tmp_path: Path
) -> None:
    agent = Agent(launch_for(target, tmp_path))
    await agent.start()
    await agent.stage("t-1", (await source.app.export(key="clear")).content)
    [journal] = (agent.launch.state_directory / "journal").iterdir()
    name = f"mathison_new_{journal.stem}"
    target.database.run(f"ALTER DATABASE {name} OWNER TO postgres", on="postgres")

    with pytest.raises(ServiceError, match=f"must be owner of database {name}"):
        await agent.transfers.discard("t-1")
    await agent.restart()

    assert journal.exists()
    assert target.database.run(f"SELECT datname FROM pg_database WHERE datname = '{name}'", on="postgres") == [(name,)]
    target.database.run(f"ALTER DATABASE {name} OWNER TO {target.database.role}", on="postgres")
    await agent.transfers.housekeeping.tidy()
    require_nothing_left(target, agent)
    await agent.close()


async def test_no_file_is_loaded_for_an_n8n_whose_role_is_a_member_of_another(source: Pair, target: Pair) -> None:
    role, staged = target.database.role, MemoryRecord()
    archive = (await source.app.export(key="clear")).content
    await target.app.stage(archive, staged)
    target.database.run(f"CREATE ROLE {role}_group", on="postgres")
    target.database.run(f"GRANT {role}_group TO {role}", on="postgres")

    obstacle = (await target.app.recipe.describe()).can_import.obstacle
    with pytest.raises(AppUnavailableError) as refused:
        await target.app.stage(archive, MemoryRecord())
    await target.app.recipe.restore(staged, Unwatched())

    assert f"REVOKE {role}_group FROM {role};" in obstacle
    assert refused.value.text == obstacle
    await target.app.recipe.discard(staged)
    target.database.run(f"DROP ROLE {role}_group", on="postgres")
    target.require_no_leftovers()
