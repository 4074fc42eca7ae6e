"""The exchange of databases under load, in the way of others, and cut off in the middle."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from agent.engines.pg.imports import beside, swap
from agent.engines.pg.imports.swap import Rename
from agent.engines.pg.server.connection import Connection
from agent.engines.pg.server.names import kept_name, new_name
from agent.recipes.base import Recovered
from agent.unsettled import UnsettledError
from common.errors import AppBusyError, AppUnavailableError
from tests.fakes.imports import MemoryRecord, upload_of
from tests.fixtures.variants import variants
from tests.integration.agent.engines.pg.apps import PostgresApp
from tests.integration.agent.engines.pg.conftest import MakeApp
from tools.servers import PostgresServer, postgres

OURS = "SELECT datname FROM pg_database WHERE datname ^@ 'mathison_'"


BROKEN = (
    "terminating connection due to administrator command",
    "server closed the connection unexpectedly",  # the same, where the client was just sending
    'database "app_',
)


class Hammer:
    """Clients that ask for the same row again and again, and connect again at once whenever that fails."""

    def __init__(self, app: PostgresApp) -> None:
        self._dsn = app.server.dsn(app.database, app.role, password=app.password)
        self._is_over = threading.Event()
        self._last_at = time.monotonic()
        self.answers: list[int] = []
        self.errors: Counter[str] = Counter()
        self.longest_gap_seconds = 0.0
        self._threads = [threading.Thread(target=self._ask) for _ in range(8)]

    def _ask(self) -> None:
        while not self._is_over.is_set():
            try:
                with psycopg.connect(self._dsn, autocommit=True) as connection:
                    while not self._is_over.is_set():
                        row = connection.execute("SELECT a FROM t").fetchone()
                        moment = time.monotonic()
                        self.longest_gap_seconds = max(self.longest_gap_seconds, moment - self._last_at)
                        self._last_at = moment
                        self.answers.append(row[0] if row else -1)
            except psycopg.Error as failure:
                self.errors[str(failure).strip().splitlines()[0]] += 1

    @contextmanager
    def going(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            self.wait_for_answers()
            yield
        finally:
            self._is_over.set()
            for thread in self._threads:
                thread.join()

    def wait_for_answers(self) -> None:
        """Until every client has had time for some more."""
        wanted = len(self.answers) + 100
        deadline = time.monotonic() + 20
        while len(self.answers) < wanted:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@variants("major", [13, 17], kept=[17])
async def test_clients_that_reconnect_meet_two_short_errors_and_then_the_new_data(
    make_app: MakeApp, major: int
) -> None:
    app = make_app(major)
    app.run("CREATE TABLE t AS SELECT 1 AS a", as_app=True)
    archive = await app.export()
    app.run("UPDATE t SET a = 2", as_app=True)
    record, _ = await app.stage(archive)
    hammer = Hammer(app)

    with hammer.going():
        await app.recipe.restore(record, app.progress)
        hammer.wait_for_answers()

    assert hammer.answers[0] == 2
    assert hammer.answers[-1] == 1
    assert hammer.answers == sorted(hammer.answers, reverse=True)
    assert [error for error in hammer.errors if not any(known in error for known in BROKEN)] == []
    assert hammer.errors.total() <= 2 * 8
    assert hammer.longest_gap_seconds < 5


async def test_a_session_that_may_not_be_ended_makes_the_app_busy_and_the_step_can_be_repeated(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swap, "SWAP_SECONDS", 1.0)
    app = make_app(rights="CREATEDB CREATEROLE", has_admin=False)
    app.run("CREATE TABLE t AS SELECT 1 AS a", as_app=True)
    archive = await app.export()
    app.run("UPDATE t SET a = 2", as_app=True)
    record, _ = await app.stage(archive)

    with psycopg.connect(app.server.dsn(app.database)), pytest.raises(AppBusyError, match="role postgres"):
        await app.recipe.restore(record, app.progress)
    untouched = app.run("SELECT a FROM t")
    await app.recipe.restore(record, app.progress)

    assert (untouched, app.run("SELECT a FROM t")) == ([(2,)], [(1,)])


async def test_sessions_of_other_roles_are_ended_with_the_right_to_signal(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swap, "SWAP_SECONDS", 1.0)
    app, other = make_app(rights="CREATEDB CREATEROLE", has_admin=False), make_app()
    app.run("CREATE TABLE t (a int)", as_app=True)
    record, _ = await app.stage(await app.export())

    with psycopg.connect(app.server.dsn(app.database, other.role, password=other.password)) as session:
        with pytest.raises(AppBusyError, match=f"role {other.role}"):
            await app.recipe.restore(record, app.progress)
        app.run(f"GRANT pg_signal_backend TO {app.role}", on="postgres")
        await app.recipe.restore(record, app.progress)

        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")


async def test_a_prepared_transaction_in_the_way_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swap, "SWAP_SECONDS", 1.0)
    with PostgresServer(postgres(17), settings={"max_prepared_transactions": "5"}) as server:
        app = PostgresApp(server, tmp_path)
        app.run("CREATE TABLE t (a int)", as_app=True)
        record, _ = await app.stage(await app.export())
        app.run("BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'left by the app'")

        with pytest.raises(AppBusyError, match="prepared transaction left by the app"):
            await app.recipe.restore(record, app.progress)

        app.run("ROLLBACK PREPARED 'left by the app'")
        await app.recipe.restore(record, app.progress)


@variants("killed_after", [0, 1, 2], ids=["before", "between", "after"], kept=[1])
async def test_a_server_killed_in_the_swap_comes_back_with_one_or_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_after: int
) -> None:
    with PostgresServer(postgres(17), fsync=True) as server:
        app = PostgresApp(server, tmp_path)
        app.run("CREATE TABLE t AS SELECT 1 AS a", as_app=True)
        archive = await app.export()
        app.run("UPDATE t SET a = 2", as_app=True)
        record, _ = await app.stage(archive)

        async def rename_and_die(connection: Connection, renames: list[Rename]) -> None:
            if killed_after == 2:
                await _rename(connection, renames)
            else:
                await connection.execute("BEGIN")
                for one in renames[:killed_after]:
                    await connection.execute(f'ALTER DATABASE "{one.name}" RENAME TO "{one.to}"')
            server.kill()
            await connection.execute("COMMIT")

        _rename = swap._rename
        with monkeypatch.context() as patch:
            patch.setattr(swap, "_rename", rename_and_die)
            with pytest.raises(UnsettledError):
                await app.recipe.restore(record, app.progress)
        server.start()
        recovered = await app.new_recipe().recover(record)

        assert app.run("SELECT a FROM t") == [(1 if killed_after == 2 else 2,)]
        assert recovered is (Recovered.IMPORTED if killed_after == 2 else Recovered.PREVIOUS)
        await app.new_recipe().discard(record)
        assert app.left_over() == []


async def test_an_agent_that_lost_its_connection_right_after_the_commit_knows_that_it_is_done(
    app: PostgresApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.run("CREATE TABLE t AS SELECT 1 AS a", as_app=True)
    archive = await app.export()
    app.run("UPDATE t SET a = 2", as_app=True)
    record, _ = await app.stage(archive)

    async def exchange_and_lose_the_answer(*args: object, **options: object) -> None:
        await swap.exchange(*args, **options)  # type: ignore[arg-type]
        raise AppUnavailableError("the connection broke")

    monkeypatch.setattr(beside, "exchange", exchange_and_lose_the_answer)
    await app.recipe.restore(record, app.progress)
    imported = app.run("SELECT a FROM t")
    await app.recipe.undo(record, app.progress)

    assert (imported, app.run("SELECT a FROM t")) == ([(1,)], [(2,)])


async def test_a_swap_that_did_not_happen_is_an_error_with_everything_as_it_was(
    app: PostgresApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.run("CREATE TABLE t AS SELECT 1 AS a", as_app=True)
    archive = await app.export()
    app.run("UPDATE t SET a = 2", as_app=True)
    record, _ = await app.stage(archive)

    async def lose(*_: object, **__: object) -> None:
        raise AppUnavailableError("the connection broke")

    with monkeypatch.context() as patch:
        patch.setattr(beside, "exchange", lose)
        with pytest.raises(AppUnavailableError, match="the connection broke"):
            await app.recipe.restore(record, app.progress)
    assert app.run("SELECT a FROM t") == [(2,)]
    assert app.run(OURS) == [(new_name(record.key),)]

    await app.recipe.restore(record, app.progress)
    with monkeypatch.context() as patch:
        patch.setattr(beside, "exchange", lose)
        with pytest.raises(AppUnavailableError, match="the connection broke"):
            await app.recipe.undo(record, app.progress)
    assert app.run("SELECT a FROM t") == [(1,)]
    assert app.run(OURS) == [(kept_name(record.key),)]


class AgentKilledError(BaseException):
    """Nothing of the agent runs on after this."""


STEPS_OF_STAGE = [
    "agent.engines.pg.imports.green._create_role",
    "agent.engines.pg.imports.green.create_statement",
    "agent.engines.pg.imports.green.prepare",
    "agent.engines.pg.imports.beside.analyze",
    "agent.engines.pg.imports.green.give_belongings",
    "agent.engines.pg.imports.beside.changes_between",
]
"""Before each there is something more: nothing, a role, a database, its content, its new owner, its belongings."""


@variants("step", STEPS_OF_STAGE, every=3)
async def test_an_agent_killed_while_staging_finds_all_that_it_left(
    app: PostgresApp, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    app.run("CREATE TABLE t AS SELECT 1 AS a", as_app=True)
    archive = await app.export()
    before = await app.fingerprint()
    record = MemoryRecord()

    def die(*_: object, **__: object) -> None:
        raise AgentKilledError

    with monkeypatch.context() as patch:
        patch.setattr(step, die)
        with pytest.raises(AgentKilledError):
            await app.recipe.stage(upload_of(archive), record, app.progress)
    await app.new_recipe().discard(record)

    assert app.left_over() == []
    assert before.differences(await app.fingerprint()) == []


@pytest.mark.parametrize("step", [STEPS_OF_STAGE[1], STEPS_OF_STAGE[3]])
async def test_what_a_killed_agent_left_is_found_without_its_journal(
    app: PostgresApp, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    app.run("CREATE TABLE t AS SELECT 1 AS a", as_app=True)
    archive = await app.export()

    def die(*_: object, **__: object) -> None:
        raise AgentKilledError

    with monkeypatch.context() as patch:
        patch.setattr(step, die)
        with pytest.raises(AgentKilledError):
            await app.recipe.stage(upload_of(archive), MemoryRecord(), app.progress)
    record, _ = await app.stage(archive)
    await app.new_recipe().discard(record)

    assert app.left_over() == []


@pytest.mark.parametrize("is_done", [False, True], ids=["before the swap", "after it"])
async def test_an_agent_killed_while_restoring_or_undoing_learns_from_the_names(
    app: PostgresApp, monkeypatch: pytest.MonkeyPatch, is_done: bool
) -> None:
    app.run("CREATE TABLE t AS SELECT 1 AS a", as_app=True)
    archive = await app.export()
    app.run("UPDATE t SET a = 2", as_app=True)
    record, _ = await app.stage(archive)

    async def die(*args: object, **options: object) -> None:
        if is_done:
            await swap.exchange(*args, **options)  # type: ignore[arg-type]
        raise AgentKilledError

    monkeypatch.setattr(beside, "exchange", die)
    with pytest.raises(AgentKilledError):
        await app.recipe.restore(record, app.progress)
    after_restore = await app.new_recipe().recover(record)
    if not is_done:
        monkeypatch.setattr(beside, "exchange", swap.exchange)
        await app.recipe.restore(record, app.progress)
        monkeypatch.setattr(beside, "exchange", die)
    with pytest.raises(AgentKilledError):
        await app.recipe.undo(record, app.progress)
    after_undo = await app.new_recipe().recover(record)

    assert after_restore is (Recovered.IMPORTED if is_done else Recovered.PREVIOUS)
    assert after_undo is (Recovered.PREVIOUS if is_done else Recovered.IMPORTED)
    assert app.run("SELECT a FROM t") == [(2 if is_done else 1,)]
    await app.new_recipe().discard(record)
    assert app.left_over() == []
