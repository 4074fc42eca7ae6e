"""The agent, the server, or both die in the middle of a swap: the data is on one side then, and it is said on which."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from agent.engines.redis import exchange, swap
from agent.engines.redis.swap_record import Aim
from agent.journal import Entry
from agent.recipes.base import Recovered
from agent.states import Kind, TransferState
from agent.unsettled import UnsettledError
from common.errors import AppUnavailableError, ToolFailedError
from tests.fixtures import forked
from tests.fixtures.redis_data import content_of, fill, fill_otherwise
from tests.fixtures.redis_moments import MOMENTS
from tests.fixtures.redis_servers import StartRedis, client_of
from tests.fixtures.variants import variants
from tests.integration.agent.recipes import redis_program
from tests.integration.agent.recipes.redis_apps import LAST_DATABASE, RedisApp
from tools.demo.cache_fingerprint import Fingerprint
from tools.servers import RedisServer

NOTHING, SNAPSHOTS, LOG = (
    {"save": '""'},
    {"save": "3600 1"},
    {"appendonly": "yes", "save": '""', "appendfsync": "always"},
)
KEEPING = {"nothing": NOTHING, "snapshots": SNAPSHOTS, "append-only file": LOG}
LONG_AGO = 1700000000
"""Unix seconds: markers of that day have expired."""
BEFORE_THE_SWAP = ["copying", "settings changed", "copy complete", "told to copy us", "all sent but the end"]
AFTER_THE_SWAP = ["loaded", "before it is durable", "durable"]
OF_AN_UNDO = [moment for moment in MOMENTS if moment not in ("copying", "copy complete")]


@dataclass
class Import:
    """An import that was staged, in a journal on disk."""

    app: RedisApp
    entry: Entry
    journal: Path
    settings: dict[str, str]
    previous: Fingerprint
    imported: Fingerprint

    @property
    def server(self) -> RedisServer:
        return self.app.server

    def die_at(self, moment: str, action: str = "restore") -> None:
        """Have a process go on with it, that kills itself then."""
        forked.require_killed(
            redis_program.die_at, moment, action, self.server.port, self.app.work_directory, self.journal
        )

    async def recover(self) -> Recovered:
        """As the next agent does, twice; and see that all of it is on the side that it says."""
        found = [await self.app.recover(self.read()) for _ in range(2)]
        assert found[0] is found[1]
        await self.require(found[0])
        return found[0]

    async def require(self, side: Recovered) -> None:
        """Everything is on that side, and nothing of the swap is left in the server."""
        wanted = self.imported if side is Recovered.IMPORTED else self.previous
        assert (await content_of(self.server)).differences(wanted) == []
        self.app.require_released(self.settings)

    async def take_back(self) -> None:
        """What an import that counts as done can do."""
        await self.app.recipe.undo(self.read(), self.app.progress)
        await self.require(Recovered.PREVIOUS)
        assert self.app.files() == []

    async def drop(self) -> None:
        """What becomes of one that came to nothing."""
        await self.app.recipe.discard(self.read())
        await self.require(Recovered.PREVIOUS)
        assert self.app.files() == []

    def read(self) -> Entry:
        """What the journal says of it."""
        [entry] = redis_program.journal_in(self.journal).read()
        return entry


async def stage(server: RedisServer, directory: Path) -> Import:
    """Data, other data, and the first of them staged again."""
    app = RedisApp(server, directory / "work")
    with client_of(server) as client:
        client.flushall()
    fill(server, keys=20)
    imported = await content_of(server)
    file = (await app.export()).file
    fill_otherwise(server)
    journal = directory / "journal"
    state = TransferState(transfer_id="t-1", kind=Kind.IMPORT, started_at=dt.datetime.now(dt.UTC))
    entry = redis_program.journal_in(journal).open(state)
    await app.stage(file, entry)
    return Import(app, entry, journal, app.server_settings(), await content_of(server), imported)


@variants("moment", MOMENTS, kept=["told to copy us", "loaded"])
@variants("name", ["redis-7.0", "valkey-9.1"])
async def test_an_agent_killed_in_a_restore_is_recovered_from(
    name: str, moment: str, redis_servers: Callable[[str], RedisServer], tmp_path: Path
) -> None:
    one = await stage(redis_servers(name), tmp_path)

    one.die_at(moment)
    side = await one.recover()

    assert side is Recovered.PREVIOUS or moment not in BEFORE_THE_SWAP
    assert side is Recovered.IMPORTED or moment not in AFTER_THE_SWAP
    await (one.take_back() if side is Recovered.IMPORTED else one.drop())


@variants(
    "moment", ["copy complete", "told to copy us", "all sent but the end", "all sent", "loaded"], kept=["all sent"]
)
async def test_an_agent_killed_in_a_restore_of_redis_6_is_recovered_from(
    moment: str, redis_servers: Callable[[str], RedisServer], tmp_path: Path
) -> None:
    one = await stage(redis_servers("redis-6.2"), tmp_path)

    one.die_at(moment)
    side = await one.recover()

    await (one.take_back() if side is Recovered.IMPORTED else one.drop())


@variants("moment", OF_AN_UNDO, kept=["all sent"])
@variants("tail", ["no", "some", "flushing"], kept=["some"])
async def test_an_agent_killed_in_an_undo_is_recovered_from(
    moment: str,
    tail: str,
    redis_servers: Callable[[str], RedisServer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = await stage(redis_servers("redis-7.0"), tmp_path)
    _write(one.server, tail)
    one.previous = await content_of(one.server)
    fill_otherwise(one.server)
    with monkeypatch.context() as patches:
        # The copy of the previous data has begun then, so these come as commands after it.
        MOMENTS["settings changed"].hook(lambda: _write(one.server, tail), patches.setattr)
        await one.app.recipe.restore(one.entry, one.app.progress)
    await one.require(Recovered.IMPORTED)

    one.die_at(moment, "undo")
    side = await one.recover()

    assert side is Recovered.IMPORTED or moment in ("all sent", *AFTER_THE_SWAP)
    assert side is Recovered.PREVIOUS or moment not in AFTER_THE_SWAP
    if side is Recovered.IMPORTED:
        await one.take_back()


def _write(server: RedisServer, tail: str) -> None:
    """While the previous data is copied."""
    if tail == "no":
        return
    with client_of(server, database=4) as client:
        if tail == "flushing":
            client.flushall()
        client.set("in the tail", "x" * 20_000)
        client.set("and at its end", "1")


@variants("moment", [moment for moment in MOMENTS if moment not in ("copying", "settings changed")], kept=["all sent"])
@variants("keeping", KEEPING, kept=["append-only file"])
async def test_a_server_killed_in_a_restore_comes_back_on_one_side(
    moment: str, keeping: str, start_redis: StartRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_redis("redis-7.0", settings=KEEPING[keeping])
    one = await stage(server, tmp_path)
    starting: list[threading.Thread] = []

    with monkeypatch.context() as patches:
        MOMENTS[moment].hook(lambda: _kill_and_start(server, starting), patches.setattr)
        try:
            await one.app.recipe.restore(one.entry, one.app.progress)
            failure = ""
        except ToolFailedError as error:
            failure = error.text

    [thread] = starting
    thread.join()
    if (keeping, moment) == ("nothing", "durable"):
        # The import was complete; a server that keeps nothing lost it afterwards, by itself.
        assert not failure
        return
    _drop_marker(server)
    if failure:
        assert "has its previous data" in failure
        await one.require(Recovered.PREVIOUS)
        await one.app.recipe.restore(one.entry, one.app.progress)
    await one.require(Recovered.IMPORTED)
    await one.take_back()


@variants("moment", ["all sent but the end", "all sent", "loaded", "durable"], kept=["loaded"])
@variants("keeping", KEEPING, kept=["snapshots"])
async def test_agent_and_server_killed_together_are_recovered_from(
    moment: str, keeping: str, start_redis: StartRedis, tmp_path: Path
) -> None:
    server = start_redis("redis-7.0", settings=KEEPING[keeping])
    one = await stage(server, tmp_path)

    one.die_at(moment)
    server.kill()
    server.start()
    side = await one.app.recover(one.read())

    _drop_marker(server)
    if (keeping, moment) == ("nothing", "durable"):
        # As above.
        assert side is Recovered.IMPORTED
        return
    await one.require(side)


@pytest.mark.parametrize("moment", ["copying", "settings changed"])
async def test_the_copy_of_an_attempt_that_failed_is_never_put_back(
    moment: str, start_redis: StartRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_redis("redis-7.0", settings=SNAPSHOTS)
    one = await stage(server, tmp_path)
    with monkeypatch.context() as patches:
        patches.setattr(exchange.Exchange, "_load", _refuse)
        with pytest.raises(ToolFailedError, match="not today"):
            await one.app.recipe.restore(one.entry, one.app.progress)
    with client_of(server) as client:
        client.set("old", "written after the first attempt")
        client.save()
    one.previous = await content_of(server)

    one.die_at(moment)
    server.kill()
    server.start()

    assert await one.recover() is Recovered.PREVIOUS


async def _refuse(*_: object) -> None:
    raise ToolFailedError("not today")


async def test_an_import_whose_marker_expired_before_anybody_read_it_keeps_the_previous_data(
    redis_servers: Callable[[str], RedisServer], tmp_path: Path
) -> None:
    one = await stage(redis_servers("redis-7.0"), tmp_path)
    one.die_at("all sent")
    with client_of(one.server, database=LAST_DATABASE) as client:
        while not client.keys("mathison-data:*"):
            pass
        client.client_unpause()
        client.flushdb()
    _grow_old(one.read())

    assert await one.recover() is Recovered.IMPORTED
    await one.take_back()


@pytest.mark.parametrize("is_saved", [False, True], ids=["not saved yet", "saved since"])
@variants("name", ["redis-6.2", "redis-7.0", "valkey-9.1"], kept=["redis-7.0"])
async def test_writes_after_a_restart_are_not_taken_back(
    name: str, start_redis: StartRedis, tmp_path: Path, *, is_saved: bool
) -> None:
    server = start_redis(name, settings=SNAPSHOTS if is_saved else LOG)
    one = await stage(server, tmp_path)
    one.die_at("told to copy us")
    server.kill()
    server.start()
    with client_of(server) as client:
        client.set("written since", "1")
        if is_saved:
            client.bgsave()
            while client.info("persistence")["rdb_changes_since_last_save"]:
                pass

    side = await one.app.recover(one.read())

    assert side is Recovered.PREVIOUS
    with client_of(server) as client:
        assert client.get("written since") == b"1"
        assert client.get("old") == b"yes"


@variants("moment", ["copy complete", "told to copy us", "all sent but the end"], kept=["told to copy us"])
@variants("keeping", ["snapshots", "append-only file"])
async def test_writes_of_a_run_before_the_last_are_not_taken_back(
    keeping: str, moment: str, start_redis: StartRedis, tmp_path: Path
) -> None:
    server = start_redis("redis-7.0", settings=KEEPING[keeping])
    one = await stage(server, tmp_path)
    one.die_at(moment)
    server.kill()
    server.start()
    with client_of(server) as client:
        client.set("written since", "1")
        if keeping == "snapshots":
            client.save()

    server.stop()
    server.start()
    side = await one.app.recover(one.read())

    assert side is Recovered.PREVIOUS
    with client_of(server) as client:
        assert client.get("written since") == b"1"
        assert client.get("old") == b"yes"


@variants(
    "second", ["settings changed", "told to copy us", "all sent but the end", "all sent", "loaded"], kept=["all sent"]
)
@pytest.mark.parametrize("dies_too", [False, True], ids=["the server lives on", "the server too"])
@variants("keeping", KEEPING, kept=["append-only file"])
async def test_an_agent_killed_in_a_recovery_is_recovered_from(
    keeping: str, second: str, start_redis: StartRedis, tmp_path: Path, *, dies_too: bool
) -> None:
    server = start_redis("redis-7.0", settings=KEEPING[keeping])
    one = await stage(server, tmp_path)
    one.die_at("all sent but the end")
    server.kill()
    server.start()

    if keeping == "nothing":
        one.die_at(second, "recover")
    if dies_too:
        server.kill()
        server.start()

    assert await one.recover() is Recovered.PREVIOUS
    await one.drop()


@pytest.mark.parametrize("said", list(Aim))
@variants("is_saved", [False, True], ids=["not saved", "saved by somebody since"])
async def test_what_a_server_that_keeps_nothing_was_given_since_is_not_overwritten_and_a_person_decides(
    said: Aim, start_redis: StartRedis, tmp_path: Path, *, is_saved: bool
) -> None:
    server = start_redis("redis-7.0", settings=NOTHING)
    one = await stage(server, tmp_path)
    one.die_at("all sent but the end")
    server.kill()
    server.start()
    with client_of(server) as client:
        client.set("written since", "1")
        if is_saved:
            started = client.lastsave()
            # Its clock has whole seconds, so a snapshot of the first two may be one of its start.
            while client.lastsave() - started < dt.timedelta(seconds=2):
                client.save()

    for _ in range(2):
        with pytest.raises(AppUnavailableError, match=f"Nobody can know.*SET mathison-data:import:{one.entry.key} im"):
            await one.app.recover(one.read())

    with client_of(server, database=LAST_DATABASE) as client:
        client.set(f"mathison-data:import:{one.entry.key}", said.value)
    assert await one.app.recover(one.read()) is Recovered(said.value)
    with client_of(server) as client:
        assert client.keys() == [b"written since"]
    if said is Aim.IMPORTED:
        await one.take_back()


async def test_a_recovery_has_a_server_that_keeps_nothing_save_nothing(start_redis: StartRedis, tmp_path: Path) -> None:
    one = await stage(start_redis("redis-7.0", settings=NOTHING), tmp_path)
    one.die_at("before it is durable")

    assert await one.recover() is Recovered.IMPORTED
    await one.take_back()
    assert not (one.server.directory / "dump.rdb").exists()


@variants("name", ["redis-6.2", "redis-7.0", "valkey-9.1"], kept=["redis-7.0"])
async def test_a_server_that_was_told_meanwhile_to_save_no_more_comes_back_with_what_is_said(
    name: str, start_redis: StartRedis, tmp_path: Path
) -> None:
    one = await stage(start_redis(name, settings=SNAPSHOTS), tmp_path)
    one.die_at("loaded")
    with client_of(one.server) as client:
        client.config_set("save", "")
    one.settings["save"] = ""
    assert await one.recover() is Recovered.IMPORTED
    one.server.kill()
    one.server.start()

    _drop_marker(one.server)
    assert (await content_of(one.server)).differences(one.imported) == []


async def test_what_was_written_to_a_part_of_the_previous_data_is_not_overwritten(
    redis_servers: Callable[[str], RedisServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await stage(redis_servers("redis-7.0"), tmp_path)
    with monkeypatch.context() as patches:
        MOMENTS["settings changed"].hook(lambda: _write(one.server, "some"), patches.setattr)
        await one.app.recipe.restore(one.entry, one.app.progress)
    one.die_at("loaded", "undo")
    _end_pause(one.read())
    with client_of(one.server) as client:
        client.client_unpause()
        client.set("written since", "1")

        with pytest.raises(AppUnavailableError, match="Nobody can know"):
            await one.app.recover(one.read())

        assert client.get("written since") == b"1"
        client.delete("written since")
    with client_of(one.server, database=LAST_DATABASE) as client:
        client.set(f"mathison-data:import:{one.entry.key}", "previous")
    assert await one.recover() is Recovered.PREVIOUS


async def test_what_nobody_can_know_counts_as_imported_after_a_day(start_redis: StartRedis, tmp_path: Path) -> None:
    server = start_redis("redis-7.0", settings=NOTHING)
    one = await stage(server, tmp_path)
    one.die_at("loaded")
    server.kill()
    server.start()
    with client_of(server) as client:
        client.set("written since", "1")
    _grow_old(one.read())

    assert await one.app.recover(one.read()) is Recovered.IMPORTED

    with client_of(server) as client:
        assert client.keys() == [b"written since"]
    await one.take_back()


@variants("moment", ["copy complete", "told to copy us", "all sent but the end", *AFTER_THE_SWAP], kept=["loaded"])
async def test_an_import_in_which_an_older_agent_was_killed_is_not_taken_for_one_that_had_not_begun(
    moment: str, redis_servers: Callable[[str], RedisServer], tmp_path: Path
) -> None:
    one = await stage(redis_servers("redis-7.0"), tmp_path)
    one.die_at(moment)
    _note_as_version_1(one)

    if moment in AFTER_THE_SWAP:
        assert await one.recover() is Recovered.IMPORTED
        await one.take_back()
        return
    files = one.app.files()
    for _ in range(2):
        with pytest.raises(AppUnavailableError, match=r"begun by an older agent.*SET mathison-data:import:"):
            await one.app.recover(one.read())
    assert one.app.files() == files
    await one.require(Recovered.PREVIOUS)
    with client_of(one.server, database=LAST_DATABASE) as client:
        client.set(f"mathison-data:import:{one.entry.key}", "previous")
    assert await one.recover() is Recovered.PREVIOUS
    await one.drop()


@variants("moment", ["settings changed", "told to copy us", *AFTER_THE_SWAP], kept=["loaded"])
async def test_an_undo_in_which_an_older_agent_was_killed_is_not_taken_for_one_that_had_not_begun(
    moment: str, redis_servers: Callable[[str], RedisServer], tmp_path: Path
) -> None:
    one = await stage(redis_servers("redis-7.0"), tmp_path)
    await one.app.recipe.restore(one.entry, one.app.progress)
    one.die_at(moment, "undo")
    _note_as_version_1(one)

    if moment in AFTER_THE_SWAP:
        assert await one.recover() is Recovered.PREVIOUS
        await one.drop()
        return
    with pytest.raises(AppUnavailableError, match="begun by an older agent"):
        await one.app.recover(one.read())
    await one.require(Recovered.IMPORTED)
    with client_of(one.server, database=LAST_DATABASE) as client:
        client.set(f"mathison-data:import:{one.entry.key}", "imported")
    assert await one.recover() is Recovered.IMPORTED
    await one.take_back()


async def test_what_an_older_agent_keeps_can_be_undone(
    redis_servers: Callable[[str], RedisServer], tmp_path: Path
) -> None:
    one = await stage(redis_servers("redis-7.0"), tmp_path)
    await one.app.recipe.restore(one.entry, one.app.progress)
    _note_as_version_1(one)

    await one.take_back()


@variants("has_marker", [True, False])
async def test_a_taking_back_that_could_not_begin_leaves_the_import_to_be_undone(
    redis_servers: Callable[[str], RedisServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, has_marker: bool
) -> None:
    one = await stage(redis_servers("redis-7.0"), tmp_path)
    with monkeypatch.context() as patches:
        patches.setattr(exchange, "make_durable", _refuse)
        patches.setattr(swap, "SETTLE_SECONDS", 0.3)
        MOMENTS["before it is durable"].hook(
            lambda: patches.setattr(exchange.Exchange, "_load", _refuse), patches.setattr
        )
        with pytest.raises(UnsettledError, match="could not be put back"):
            await one.app.recipe.restore(one.entry, one.app.progress)
    assert one.read().facts["way_to_previous"]
    with client_of(one.server, database=LAST_DATABASE) as client:
        assert client.keys("mathison-data:*")
        if not has_marker:
            client.flushdb()

    assert await one.recover() is Recovered.IMPORTED
    await one.take_back()


def _note_as_version_1(one: Import) -> None:
    """Have the journal say what an agent would have noted that knew only the way that began last."""
    [path] = one.journal.glob("*.json")
    line = msgspec.json.decode(path.read_bytes())
    facts = line["facts"]
    ways = {aim: facts.pop(f"way_to_{aim.value}", "") for aim in Aim}
    aim = Aim.PREVIOUS if ways[Aim.PREVIOUS] else Aim.IMPORTED
    way = msgspec.json.decode(ways[aim])
    facts |= {
        "aim": aim.value,
        "reached": "durable" if facts.pop("settled", "") else way["reached"],
        "run_id": way["run_id"],
        "may_evict": "yes" if way["may_evict"] else "no",
        "begun_at": str(way["begun_at"]),
    }
    facts.pop("lost_in", None)
    path.write_bytes(msgspec.json.encode({**line, "version": 1}))


def _grow_old(entry: Entry) -> None:
    """As if it had been begun on a day whose markers have expired."""
    way = msgspec.json.decode(str(entry.facts["way_to_imported"]))
    entry.save(way_to_imported=msgspec.json.encode({**way, "begun_at": LONG_AGO}).decode())


def _end_pause(entry: Entry) -> None:
    """As if the agent had been away for more than a minute."""
    way = msgspec.json.decode(str(entry.facts["way_to_previous"]))
    assert way["paused_until"] > time.time()
    entry.save(way_to_previous=msgspec.json.encode({**way, "paused_until": LONG_AGO}).decode())


def _kill_and_start(server: RedisServer, starting: list[threading.Thread]) -> None:
    """As a supervisor does, beside what goes on."""
    server.kill()
    thread = threading.Thread(target=server.start)
    thread.start()
    starting.append(thread)


def _drop_marker(server: RedisServer) -> None:
    """One that came back from a snapshot that was made before the marker was removed."""
    with client_of(server, database=LAST_DATABASE) as client:
        assert len(client.keys()) <= 1
        client.flushdb()
