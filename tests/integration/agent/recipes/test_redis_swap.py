"""What clients see while the data under them is exchanged, and what becomes of every write they were told of."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.engines.redis import exchange
from agent.engines.redis.connection import Connection, Login, connect
from agent.engines.redis.durable import Keeping, make_durable
from agent.engines.redis.marker import Marker
from agent.engines.redis.master import Master
from agent.engines.redis.swap_record import Reached, SwapRecord
from tests.fixtures.rdb_files import GOOD
from tests.fixtures.redis_clients import counter, crowd, last_before_the_swap, reader, transaction
from tests.fixtures.redis_moments import MOMENTS
from tests.fixtures.redis_servers import StartRedis, client_of
from tests.fixtures.variants import variants
from tests.fixtures.waiting import until
from tests.integration.agent.recipes.redis_apps import LAST_DATABASE, RedisApp
from tools.servers import RedisServer

KEYS = 120_000
SERVING = ["redis-7.0", "redis-8.2", "valkey-8.1", "valkey-9.1"]
"""Those that answer reads while they load."""


def fill_with(server: RedisServer, prefix: str, keys: int = KEYS) -> None:
    """Many keys, fast: in a function that the server runs."""
    script = "for n = 1, ARGV[2] do redis.call('SET', ARGV[1] .. n, string.rep('x', 60) .. n) end"
    with client_of(server) as client:
        for start in range(0, keys, 20_000):
            client.eval(script, 0, f"{prefix}:{start}:", min(20_000, keys - start))


@dataclass
class SwapMoments:
    """Told when the server was told to copy the agent, and when it has loaded."""

    event: threading.Event = field(default_factory=threading.Event)
    on_begin: Callable[[], None] = lambda: None
    on_loaded: Callable[[], None] = lambda: None


@pytest.fixture
def swap_begins(monkeypatch: pytest.MonkeyPatch) -> SwapMoments:
    """The moments of the next swap; `event` is set at the first."""
    moments = SwapMoments()
    save, reach = SwapRecord.save_agent_at, SwapRecord.reach

    def tell_begin(self: SwapRecord, host: str, port: int) -> None:
        save(self, host, port)
        moments.on_begin()
        moments.event.set()

    def tell_loaded(self: SwapRecord, reached: Reached, **more: float) -> None:
        if reached is Reached.LOADED:
            moments.on_loaded()
        reach(self, reached, **more)

    monkeypatch.setattr(SwapRecord, "save_agent_at", tell_begin)
    monkeypatch.setattr(SwapRecord, "reach", tell_loaded)
    return moments


@variants("name", SERVING, kept=["redis-7.0"])
async def test_writers_wait_once_readers_read_on_and_no_acknowledged_write_is_lost(
    name: str, start_redis: StartRedis, swap_begins: SwapMoments, tmp_path: Path
) -> None:
    server = start_redis(name, settings={"rdbcompression": "no"})
    app = RedisApp(server, tmp_path / "work")
    fill_with(server, "new")
    exported = await app.export()
    with client_of(server) as client:
        client.flushall()
        client.set("which", "old")
    fill_with(server, "old")
    record, _ = await app.stage(exported.file)
    answered_when_begun: list[int] = []
    answered_when_loaded: list[int] = []

    with crowd(server) as clients:
        writers = [clients.add(counter("count:0")), clients.add(counter("count:3"), database=3)]
        writers.append(clients.add(transaction("count:both")))
        late = clients.add(counter("count:late"), start=swap_begins.event)
        readers = [clients.add(reader("which")), clients.add(reader("old:0:77"))]
        swap_begins.on_begin = lambda: answered_when_begun.append(len(readers[0].answers))
        swap_begins.on_loaded = lambda: answered_when_loaded.append(len(readers[0].answers))
        await until(lambda: all(one.answers for one in (*writers, *readers)))
        await app.recipe.restore(record, app.progress)
        seen = [len(one.answers) for one in (*writers, late, *readers)]
        await until(
            lambda: all(len(one.answers) > 2 + n for one, n in zip((*writers, late, *readers), seen, strict=True))
        )

    assert [one.errors for one in (*writers, late, *readers)] == [[]] * 6
    assert answered_when_loaded[0] > answered_when_begun[0]
    assert set(readers[0].answers) == {b"old", None}
    assert readers[0].answers == sorted(readers[0].answers, key=lambda answer: answer is None)
    assert [int(str(answer)) for answer in late.answers] == list(range(1, len(late.answers) + 1))

    reached = [last_before_the_swap(one.answers) for one in writers]
    await app.recipe.undo(record, app.progress)

    with client_of(server) as client, client_of(server, database=3) as client_3:
        assert int(client.get("count:0") or 0) == reached[0]
        assert int(client_3.get("count:3") or 0) == reached[1]
        assert (client.get("count:both"), client.get("count:both:twin")) == (b"%d" % reached[2],) * 2
        assert client.get("which") == b"old"
        assert client.get("count:late") is None


async def test_redis_6_refuses_nothing_to_writers_that_wait_already(start_redis: StartRedis, tmp_path: Path) -> None:
    server = start_redis("redis-6.2", settings={"rdbcompression": "no"})
    app = RedisApp(server, tmp_path / "work")
    fill_with(server, "new")
    exported = await app.export()
    with client_of(server) as client:
        client.flushall()
    record, preview = await app.stage(exported.file)

    with crowd(server) as clients:
        writer, looker = clients.add(counter("count")), clients.add(reader("old"))
        await until(lambda: len(writer.answers) > 5)
        await app.recipe.restore(record, app.progress)
        seen = len(writer.answers)
        await until(lambda: len(writer.answers) > seen + 5)

    assert writer.errors == []
    assert all("loading the dataset" in error for error in looker.errors)
    assert any("answers -LOADING to clients while it loads" in warning for warning in preview.warnings)
    reached = last_before_the_swap(writer.answers)
    await app.recipe.undo(record, app.progress)
    with client_of(server) as client:
        assert client.get("count") == b"%d" % reached


@variants("name", ["redis-6.2", "redis-7.0", "valkey-9.1"], kept=["redis-7.0"])
async def test_what_was_written_while_the_previous_data_was_copied_comes_back_whole(
    name: str, start_redis: StartRedis, tmp_path: Path
) -> None:
    server = start_redis(name, settings={"rdb-key-save-delay": "100", "save": "3600 1"})
    app = RedisApp(server, tmp_path / "work")
    with client_of(server) as client:
        client.set("imported", "1")
    exported = await app.export()
    fill_with(server, "old", 3000)
    with client_of(server, database=2) as client:
        client.set("of the beginning", "1")

    record, _ = await app.stage(exported.file)
    with crowd(server) as clients:
        writers = [clients.add(counter(f"count:{number}"), database=number) for number in range(2)]
        pusher = clients.add(lambda client: client.rpush("list", "x" * 500))
        restoring = asyncio.create_task(app.recipe.restore(record, app.progress))
        await until((app.work_directory / f"{record.key}.previous.rdb").exists)
        with client_of(server, database=2) as client:
            client.flushdb()
            client.set("of the middle", "1", ex=3600)
        await restoring
        seen = [len(one.answers) for one in (*writers, pusher)]
        await until(lambda: all(len(one.answers) > n + 2 for one, n in zip((*writers, pusher), seen, strict=True)))
    tail_bytes = (app.work_directory / f"{record.key}.previous.commands").stat().st_size
    reached = [last_before_the_swap(one.answers) for one in (*writers, pusher)]
    await app.recipe.undo(record, app.progress)

    assert tail_bytes > 50_000
    with client_of(server) as client, client_of(server, database=1) as client_1:
        assert client.get("count:0") == b"%d" % reached[0]
        assert client_1.get("count:1") == b"%d" % reached[1]
        assert client.llen("list") == reached[2]
        assert client.dbsize() == 3003
    with client_of(server, database=2) as client:
        assert client.keys() == [b"of the middle"]
        assert 3400 < client.ttl("of the middle") <= 3600


@variants("name", ["redis-6.2", "redis-7.0", "valkey-9.1"], kept=["redis-7.0"])
async def test_writers_that_wait_for_an_undo_go_on_after_the_commands_that_belong_to_it(
    name: str, start_redis: StartRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_redis(name, settings={"rdbcompression": "no"})
    app = RedisApp(server, tmp_path / "work")
    exported = await app.export()
    fill_with(server, "old", 60_000)
    record, _ = await app.stage(exported.file)
    with client_of(server) as client, monkeypatch.context() as patches:
        MOMENTS["settings changed"].hook(lambda: client.set("in the tail", "1"), patches.setattr)
        await app.recipe.restore(record, app.progress)
    assert 0 < (app.work_directory / f"{record.key}.previous.commands").stat().st_size < 1000

    with crowd(server) as clients:
        writers = [clients.add(counter(f"count:{number}")) for number in range(3)]
        await until(lambda: all(len(one.answers) > 5 for one in writers))
        await app.recipe.undo(record, app.progress)
        seen = [len(one.answers) for one in writers]
        await until(lambda: all(len(one.answers) > n + 5 for one, n in zip(writers, seen, strict=True)))

    assert [one.errors for one in writers] == [[], [], []]
    with client_of(server) as client:
        assert client.get("in the tail") == b"1"
        for number, one in enumerate(writers):
            last_before_the_swap(one.answers)
            assert client.get(f"count:{number}") == str(one.answers[-1]).encode()


async def test_no_marker_is_left_where_the_app_swaps_its_databases(
    start_redis: StartRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = RedisApp(start_redis("redis-7.0"), tmp_path / "work")
    with client_of(app.server) as client:

        async def swapped_before(connection: Connection, keeping: Keeping) -> None:
            client.swapdb(0, LAST_DATABASE)
            await make_durable(connection, keeping)

        monkeypatch.setattr(exchange, "make_durable", swapped_before)
        await app.import_file(GOOD)

        assert client.keys("*") == []
        client.swapdb(0, LAST_DATABASE)
        assert sorted(client.keys("*")) == [b"a", b"b"]


async def test_a_marker_is_read_and_removed_in_whatever_database_it_is_now(start_redis: StartRedis) -> None:
    server = start_redis("redis-7.0")
    async with connect(Login("127.0.0.1", server.port)) as connection:
        marker = await Marker.on(connection, "key")
        for database in (LAST_DATABASE, 3, 0):
            with client_of(server, database=database) as client:
                client.set(marker.name, "imported")
                assert await marker.read(connection) == "imported"
                await marker.remove(connection)
                assert client.keys("*") == []
        assert await marker.read(connection) == ""


async def test_blocked_clients_are_told_and_subscribers_stay(start_redis: StartRedis, tmp_path: Path) -> None:
    server = start_redis("redis-7.0")
    app = RedisApp(server, tmp_path / "work")
    exported = await app.export()
    with client_of(server) as client, client.pubsub() as subscriber, crowd(server) as clients:
        subscriber.subscribe("news")
        assert subscriber.get_message(timeout=5) is not None
        is_served = threading.Event()
        waiter = clients.add(lambda one: one.blpop(["queue"], timeout=0.01 if is_served.is_set() else 20))
        while client.info("clients")["blocked_clients"] == 0:
            pass

        await app.import_file(exported.file)
        await until(lambda: bool(waiter.errors))
        is_served.set()
        client.rpush("queue", "work")
        client.publish("news", "still here")

        message = subscriber.get_message(timeout=5)
        assert message is not None
        assert message["data"] == b"still here"
        assert waiter.errors[0].startswith("UNBLOCKED")
        await until(lambda: any(waiter.answers))
        clients.stop()


async def test_a_stranger_on_the_agents_port_gets_nothing(
    start_redis: StartRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_redis("redis-7.0")
    app = RedisApp(server, tmp_path / "work")
    with client_of(server) as client:
        client.set("secret", "1")
    record, _ = await app.stage((await app.export()).file)
    listen = Master.listen

    def listen_to_strangers_first(self: Master, host: str, port: int) -> int:
        chosen = listen(self, host, port)
        for words in (
            b"PSYNC ? -1\r\n",
            b"AUTH guess\r\nPSYNC ? -1\r\n",
            b"GET secret\r\n",
            b"\x16\x03\x01garbage",
            b"",
        ):
            caller = socket.create_connection((host, chosen))
            caller.sendall(words)
            caller.shutdown(socket.SHUT_WR)
            callers.append(caller)
        return chosen

    callers: list[socket.socket] = []
    monkeypatch.setattr(Master, "listen", listen_to_strangers_first)

    await app.recipe.restore(record, app.progress)

    got = []
    for caller in callers:
        with caller, contextlib.suppress(ConnectionResetError):
            got.append(caller.recv(1 << 16))
    assert all(b"REDIS" not in answer and b"FULLRESYNC" not in answer for answer in got)
    with client_of(server) as client:
        assert client.get("secret") == b"1"
