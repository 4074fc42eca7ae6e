"""A real n8n starts on what was imported, under another key, and reads its credentials."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pyrage  # type: ignore[import-untyped]
import pytest

from common.errors import AppUnavailableError
from tests.fakes.imports import NotedProgress
from tests.fixtures.waiting import until
from tests.integration.agent.engines.pg.apps import PostgresApp
from tests.n8n.conftest import Editor, MakeN8n, RealN8n
from tools.servers import PostgresServer

IDENTITY = pyrage.x25519.Identity.generate()
CREDENTIAL = {
    "name": "Mail",
    "type": "imap",
    "data": {"user": "u", "password": "s3cr3t-ÄÖ-€"},
}
SCHEDULE = {
    "id": "n1",
    "name": "Schedule",
    "type": "n8n-nodes-base.scheduleTrigger",
    "typeVersion": 1.2,
    "position": [0, 0],
    "parameters": {"rule": {"interval": [{"field": "hours"}]}},
}
WORKFLOW = {
    "name": "Every hour",
    "nodes": [SCHEDULE],
    "connections": {},
    "settings": {},
}
WAITING = {
    "name": "Waits",
    "nodes": [
        {
            "id": "n1",
            "name": "Start",
            "type": "n8n-nodes-base.manualTrigger",
            "typeVersion": 1,
            "position": [0, 0],
            "parameters": {},
        },
        {
            "id": "n2",
            "name": "Wait",
            "type": "n8n-nodes-base.wait",
            "typeVersion": 1.1,
            "position": [200, 0],
            # One of less than 65 n8n waits for without writing it down.
            "parameters": {"amount": 70, "unit": "seconds"},
        },
        {
            "id": "n3",
            "name": "End",
            "type": "n8n-nodes-base.noOp",
            "typeVersion": 1,
            "position": [400, 0],
            "parameters": {},
        },
    ],
    "connections": {
        "Start": {"main": [[{"node": "Wait", "type": "main", "index": 0}]]},
        "Wait": {"main": [[{"node": "End", "type": "main", "index": 0}]]},
    },
    "settings": {},
}


def fill(source: RealN8n) -> None:
    """Starts it, and makes a credential and a workflow that runs, as its first user."""
    source.server.start()
    editor = Editor(source.server)
    editor.post("credentials", CREDENTIAL)
    workflow = editor.post("workflows", WORKFLOW)
    editor.post(f"workflows/{workflow['id']}/activate", {"versionId": workflow["versionId"]})


def on_postgresql(make_n8n: MakeN8n, name: str, database: PostgresApp, *, schema: str = "public") -> RealN8n:
    """An n8n that keeps its tables in a schema of a database."""
    return make_n8n(
        name,
        key=f"the key of the {name}",
        environment={
            "DB_TYPE": "postgresdb",
            "DB_POSTGRESDB_HOST": database.server.host,
            "DB_POSTGRESDB_PORT": str(database.server.port),
            "DB_POSTGRESDB_DATABASE": database.database,
            "DB_POSTGRESDB_USER": database.role,
            "DB_POSTGRESDB_PASSWORD": database.password,
            "DB_POSTGRESDB_SCHEMA": schema,
        },
        settings={"postgresql": database.settings, "schema": schema},
    )


def statuses(n8n: RealN8n) -> list[object]:
    """Of its executions."""
    return [status for (status,) in rows(n8n, "SELECT status FROM execution_entity ORDER BY id")]


def rows(n8n: RealN8n, query: str) -> list[tuple[object, ...]]:
    database = sqlite3.connect(n8n.server.folder / "database.sqlite")
    try:
        return database.execute(query).fetchall()
    finally:
        database.close()


# The first, since it waits longest.
@pytest.mark.timeout(900)
async def test_an_execution_that_waits_and_knows_who_started_it_is_gone_on_with(make_n8n: MakeN8n) -> None:
    source, target = make_n8n("source", key="the first key"), make_n8n("target", key="the second key")
    target.server.start()
    source.server.start()
    editor = Editor(source.server)
    workflow = editor.post("workflows", WAITING)
    editor.post(f"workflows/{workflow['id']}/run", {"triggerToStartFrom": {"name": "Start"}})
    await until(lambda: statuses(source) == ["waiting"], within_seconds=100)
    exported = await source.export(recipient=str(IDENTITY.to_public()))
    source.server.stop()

    await target.import_(exported, identity=str(IDENTITY))

    await until(lambda: statuses(target) not in (["waiting"], ["running"]), within_seconds=240)
    assert statuses(target) == ["success"]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("rotation", ["false", "true"], ids=["keys as they are", "keys rotated"])
async def test_n8n_starts_on_an_import_and_reads_its_credentials(rotation: str, make_n8n: MakeN8n) -> None:
    environment = {"N8N_ENV_FEAT_ENCRYPTION_KEY_ROTATION": rotation}
    source = make_n8n("source", key="the first key", environment=environment)
    target = make_n8n("target", key="the second key", environment=environment)
    fill(source)
    data = rows(source, "SELECT data FROM credentials_entity")
    assert (":" in str(data[0][0])) is (rotation == "true")
    target.server.start()
    exported = await source.export(recipient=str(IDENTITY.to_public()))
    source.server.stop()

    record = await target.import_(exported, identity=str(IDENTITY))

    assert target.server.is_running
    assert target.server.credentials() == {"Mail": CREDENTIAL["data"]}
    assert rows(target, "SELECT name, active FROM workflow_entity") == [("Every hour", 1)]
    assert json.loads((target.server.folder / "config").read_text())["encryptionKey"] == "the second key"
    await target.recipe.undo(record, NotedProgress())
    assert target.server.is_running
    assert rows(target, "SELECT count(*) FROM credentials_entity") == [(0,)]


@pytest.mark.timeout(900)
async def test_n8n_starts_without_the_secrets_and_with_workflows_switched_off(make_n8n: MakeN8n) -> None:
    source = make_n8n("source", key="a key that is lost")
    fill(source)
    exported = await source.export()
    source.server.stop()
    target = make_n8n("target", key="the second key")
    target.server.start()

    await target.import_(exported, without_credentials="true", deactivate_workflows="true")

    assert target.server.is_running
    assert target.server.credentials() == {"Mail": {}}
    assert rows(target, 'SELECT name, active, "activeVersionId" FROM workflow_entity') == [("Every hour", 0, None)]


@pytest.mark.timeout(1200)
async def test_n8n_on_postgresql_starts_on_an_import_and_reads_its_credentials(
    make_n8n: MakeN8n, postgres_servers: Callable[[int], PostgresServer], tmp_path: Path
) -> None:
    databases = {
        name: PostgresApp(postgres_servers(17), tmp_path / f"{name} database") for name in ("source", "target")
    }
    source, target = (on_postgresql(make_n8n, name, database) for name, database in databases.items())
    fill(source)
    target.server.start()
    exported = await source.export(recipient=str(IDENTITY.to_public()))
    source.server.stop()

    record = await target.import_(exported, identity=str(IDENTITY))

    assert target.server.is_running
    assert target.server.credentials() == {"Mail": CREDENTIAL["data"]}
    assert databases["target"].run("SELECT name, active FROM workflow_entity") == [("Every hour", True)]
    await target.recipe.undo(record, NotedProgress())
    assert databases["target"].run("SELECT count(*) FROM credentials_entity") == [(0,)]
    target.server.stop()
    for database in databases.values():
        await database.close()


@pytest.mark.timeout(1200)
async def test_an_n8n_in_a_schema_of_its_own_takes_an_import_and_none_beside_another_n8n(
    make_n8n: MakeN8n, postgres_servers: Callable[[int], PostgresServer], tmp_path: Path
) -> None:
    databases = {
        name: PostgresApp(postgres_servers(17), tmp_path / f"{name} database") for name in ("source", "target")
    }
    source, target = (on_postgresql(make_n8n, name, database, schema="own") for name, database in databases.items())
    fill(source)
    target.server.start()
    exported = await source.export(recipient=str(IDENTITY.to_public()))
    source.server.stop()
    record = await target.import_(exported, identity=str(IDENTITY))
    assert target.server.credentials() == {"Mail": CREDENTIAL["data"]}
    other = on_postgresql(make_n8n, "other", databases["target"])
    other.server.start()
    Editor(other.server).post("credentials", CREDENTIAL)

    for step in (target.recipe.undo(record, NotedProgress()), target.import_(exported, identity=str(IDENTITY))):
        with pytest.raises(AppUnavailableError, match="database also holds schema 'public'"):
            await step

    assert target.server.is_running
    assert other.server.is_running
    assert other.server.credentials() == {"Mail": CREDENTIAL["data"]}
    target.server.stop()
    other.server.stop()
    for database in databases.values():
        await database.close()
