"""Agent and server die at any step of an exchange: the app is on one side then, wholly, and the server knows it."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.engines.filesystem import renamed
from agent.engines.minio.directory import swap
from agent.engines.minio.drive import bucket_settings, exchange
from agent.engines.minio.drive.exchange import Exchange
from agent.engines.minio.drive.layout import BUCKETS
from agent.engines.minio.server import keeping, quiet
from agent.engines.minio.server.watchdog import Guarded, Orders
from agent.engines.swapping import Side
from agent.engines.tree import StagingArea
from agent.recipes import minio as recipe_module
from agent.recipes.base import Recovered
from agent.recipes.minio import MinioRecipe
from common.errors import AppBusyError, ToolFailedError
from tests.fakes.fake_minio import DEPLOYMENT, FakeMinio
from tests.fakes.imports import MemoryRecord, NotedProgress, surroundings

MOST_STEPS = 60


class CrashError(BaseException):
    """The process is gone."""


class World:
    """A drive with old data, a server on it, and new data that was staged; each change of either is a step."""

    def __init__(self, directory: Path, *, only: str = "") -> None:
        self.drive = directory / "drive"
        self.directory = directory
        for name in ("both1", "both2", "only-old"):
            _mark(self.drive, name, "old")
        _mark(self.drive / ".minio.sys", "config", "old", has_settings=False)
        (self.drive / ".minio.sys" / "format.json").write_text(f'{{"format": "xl-single", "id": "{DEPLOYMENT}"}}')
        self.server = FakeMinio(self.drive)
        self.server.before_change = self.step
        self.record = MemoryRecord(
            facts={"directory": str(self.drive), "is_portable": False, "buckets": [], "samples": [], "only": only}
        )
        area = StagingArea(self.drive, self.record.key)
        area.create()
        for name in [only] if only else ["both1", "both2", "only-new"]:
            _mark(area.new, name, "new")
        if not only:
            _mark(area.new / ".minio.sys", "config", "new", has_settings=False)
        self.progress = NotedProgress()
        self._done = self._crash_at = self._fail_at = 0
        self.previous = self.server.seen()
        self.imported = {"both1": "new, new", "both2": "new, new", "only-new": "new, new", "users": "new"}
        if only:
            self.imported = {**self.previous, only: "new, new"}

    def recipe(self) -> MinioRecipe:
        """Of an agent that knows nothing but the record."""
        password_file = self.directory / "password"
        password_file.write_text("password")
        settings = {"user": "root", "password_file": str(password_file), "directory": str(self.drive)}
        return MinioRecipe(surroundings(self.directory, settings))

    def exchange(self) -> Exchange:
        return Exchange(self.drive, self.record.key, only=str(self.record.facts["only"]))

    def keep(self, side: Side) -> None:
        """What the watchdog of an agent does that has died."""
        guarded: Guarded = {
            "drive": str(self.drive),
            "key": self.record.key,
            "only": str(self.record.facts["only"]),
            "side": side.value,
        }
        reading, writing = os.pipe()
        orders: Orders = {
            "url": "http://127.0.0.1:1",
            "user": "root",
            "password": "password",
            "region": "",
            "tls_ca_file": "",
            "most_seconds": 1,
            "alive": writing,
            "exchange": guarded,
        }
        keeping.leave_whole(guarded, orders, is_alone=True)
        assert os.read(reading, 1) == b""
        os.close(reading)

    def step(self) -> None:
        self._done += 1
        if self._done == self._crash_at:
            raise CrashError
        if self._done == self._fail_at:
            raise OSError(errno.EIO, "Input/output error", "disk")

    def begin(self, *, crash_at: int = 0, fail_at: int = 0) -> None:
        """Count steps from here on."""
        self._done, self._crash_at, self._fail_at = 0, crash_at, fail_at

    def require_whole(self, side: Recovered) -> None:
        """What clients meet is that side's, and nobody waits."""
        assert self.server.seen() == (self.imported if side is Recovered.IMPORTED else self.previous)
        assert self.server.freezes == 0

    async def take_back(self, side: Recovered) -> None:
        """To the previous data, with nothing left over."""
        self.begin()
        if side is Recovered.IMPORTED:
            await self.recipe().undo(self.record, self.progress)
        else:
            await self.recipe().discard(self.record)
        self.require_whole(Recovered.PREVIOUS)
        assert not (self.drive / ".mathison-data").exists() or not os.listdir(self.drive / ".mathison-data")


def _mark(directory: Path, name: str, text: str, *, has_settings: bool = True) -> None:
    paths = [directory / name, *([directory / ".minio.sys" / "buckets" / name] if has_settings else [])]
    for path in paths:
        path.mkdir(parents=True)
        (path / "of").write_text(text)


def _make_empty(*directories: Path) -> None:
    for directory in directories:
        directory.mkdir(exist_ok=True)


MakeWorld = Callable[..., World]


@pytest.fixture
def make_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeWorld:
    """Worlds, one at a time, that the code under test meets in place of a server."""
    current: list[World] = []
    number = 0

    def counted(original: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            current[-1].step()
            return original(*arguments, **options)

        return call

    @asynccontextmanager
    async def connected(*_: object) -> AsyncIterator[FakeMinio]:
        yield current[-1].server

    def make(**options: str) -> World:
        nonlocal number
        number += 1
        world = World(tmp_path / str(number), **options)
        current.append(world)
        Exchange(world.drive, world.record.key, only=options.get("only", "")).note_kept()
        return world

    monkeypatch.setattr(recipe_module, "connected", connected)
    monkeypatch.setattr(swap, "frozen", lambda *arguments, **options: current[-1].server.frozen())

    async def quiet_at_once(*_: object) -> bool:
        return True

    monkeypatch.setattr(keeping, "_until_quiet", quiet_at_once)
    monkeypatch.setattr(bucket_settings, "on_drive", lambda *_: bucket_settings.Settings())
    monkeypatch.setattr(exchange, "renamed", counted(renamed))
    monkeypatch.setattr(Exchange, "_write", counted(Exchange._write))
    # A made-up crash loses nothing that is not durable.
    monkeypatch.setattr(exchange, "sync_filesystem", lambda descriptor: None)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    return make


@pytest.mark.parametrize("server_dies", [False, True], ids=["the agent alone", "the server too"])
@pytest.mark.parametrize("only", ["", "both1", "only-new"], ids=["everything", "one bucket", "a bucket that comes"])
async def test_whatever_dies_at_any_step_of_a_restore_one_side_is_there_wholly(
    only: str, server_dies: bool, make_world: MakeWorld
) -> None:
    sides = []
    for crash_at in range(1, MOST_STEPS):
        world = make_world(only=only)
        world.begin(crash_at=crash_at)
        try:
            await world.recipe().restore(world.record, world.progress)
            break
        except CrashError:
            pass
        world.begin()
        if server_dies:
            world.server.start()

        side = await world.recipe().recover(world.record)

        world.require_whole(side)
        assert await world.recipe().recover(world.record) is side
        sides.append(side)
        await world.take_back(side)
    world.require_whole(Recovered.IMPORTED)
    assert len(sides) >= 5
    # Only before the journal is there can it be the previous one.
    assert sides == [Recovered.PREVIOUS] + [Recovered.IMPORTED] * (len(sides) - 1)


@pytest.mark.parametrize("server_dies", [False, True], ids=["the agent alone", "the server too"])
@pytest.mark.parametrize("only", ["", "both1", "only-new"], ids=["everything", "one bucket", "a bucket that comes"])
async def test_whatever_dies_at_any_step_of_an_undo_one_side_is_there_wholly(
    only: str, server_dies: bool, make_world: MakeWorld
) -> None:
    crashes = 0
    for crash_at in range(1, MOST_STEPS):
        world = make_world(only=only)
        await world.recipe().restore(world.record, world.progress)
        world.begin(crash_at=crash_at)
        try:
            await world.recipe().undo(world.record, world.progress)
            break
        except CrashError:
            pass
        world.begin()
        if server_dies:
            world.server.start()

        side = await world.recipe().recover(world.record)

        world.require_whole(side)
        crashes += 1
        await world.take_back(side)
    world.require_whole(Recovered.PREVIOUS)
    assert crashes >= 5


@pytest.mark.parametrize("drive_refuses", [False, True], ids=["the drive is well", "the drive refuses at first"])
@pytest.mark.parametrize("is_undo", [False, True], ids=["a restore", "an undo"])
@pytest.mark.parametrize("only", ["", "both1", "only-new"], ids=["everything", "one bucket", "a bucket that comes"])
async def test_the_watchdog_of_an_agent_that_dies_puts_back_what_its_server_knows(
    only: str, is_undo: bool, drive_refuses: bool, make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "_AGAIN_SECONDS", 0)
    sides = []
    for crash_at in range(1, MOST_STEPS):
        world = make_world(only=only)
        if is_undo:
            await world.recipe().restore(world.record, world.progress)
        leaves = Recovered.IMPORTED if is_undo else Recovered.PREVIOUS
        world.begin(crash_at=crash_at)
        try:
            await (world.recipe().undo if is_undo else world.recipe().restore)(world.record, world.progress)
            break
        except CrashError:
            pass
        was_unfinished = world.exchange().is_unfinished()
        world.begin(fail_at=2 if drive_refuses else 0)

        await asyncio.to_thread(world.keep, Side[leaves.name])

        assert not world.exchange().is_unfinished()
        if was_unfinished:
            # Nobody has restarted the server.
            world.require_whole(leaves)
        side = await world.recipe().recover(world.record)
        assert side is leaves or not was_unfinished
        world.require_whole(side)
        sides.append(side)
    assert len(sides) >= 5


async def test_a_server_is_left_frozen_while_an_exchange_is_unfinished(make_world: MakeWorld) -> None:
    world = make_world()
    world.begin(crash_at=4)
    with pytest.raises(CrashError):
        await world.recipe().restore(world.record, world.progress)
    world.begin()
    world.server.freezes = 1

    await world.recipe().tidy()
    assert world.server.freezes == 1

    assert await world.recipe().recover(world.record) is Recovered.IMPORTED
    world.require_whole(Recovered.IMPORTED)
    world.server.freezes = 1
    await world.recipe().tidy()
    assert world.server.freezes == 0


@pytest.mark.parametrize("only", ["", "both1"], ids=["everything", "one bucket"])
async def test_an_agent_that_dies_again_while_it_recovers_is_recovered_from(only: str, make_world: MakeWorld) -> None:
    crashes = 0
    for second_crash_at in range(1, MOST_STEPS):
        world = make_world(only=only)
        world.begin(crash_at=3)
        with pytest.raises(CrashError):
            await world.recipe().restore(world.record, world.progress)
        world.begin(crash_at=second_crash_at)
        try:
            await world.recipe().recover(world.record)
            break
        except CrashError:
            crashes += 1
        world.begin()

        side = await world.recipe().recover(world.record)

        world.require_whole(side)
        assert side is Recovered.IMPORTED
    assert crashes >= 3


@pytest.mark.parametrize("only", ["", "both1"], ids=["everything", "one bucket"])
async def test_a_disk_that_fails_at_any_step_leaves_the_previous_data(only: str, make_world: MakeWorld) -> None:
    failures = 0
    for fail_at in range(1, MOST_STEPS):
        world = make_world(only=only)
        world.begin(fail_at=fail_at)
        try:
            await world.recipe().restore(world.record, world.progress)
            break
        except ToolFailedError:
            failures += 1
        except OSError:
            # Of a made-up server's own call.
            break

        world.require_whole(Recovered.PREVIOUS)
    assert failures >= 3


async def test_what_a_starting_server_makes_anew_is_gone_and_what_a_client_makes_stays(make_world: MakeWorld) -> None:
    world = make_world()
    world.server.while_loading = lambda: _make_empty(world.drive / "only-old")

    await world.recipe().restore(world.record, world.progress)
    world.require_whole(Recovered.IMPORTED)

    world.server.while_loading = lambda: _make_empty(world.drive / "only-new", world.drive / BUCKETS / "only-new")
    await world.recipe().undo(world.record, world.progress)

    assert world.server.seen() == world.previous | {"only-new": "empty, not known"}


async def test_a_bucket_made_anew_is_gone_also_when_the_import_was_put_back(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unreadable(*_: object, **__: object) -> None:
        raise ToolFailedError("it cannot be read")

    world = make_world()
    world.record.save(buckets=["both1"])
    monkeypatch.setattr(swap, "_tolerating_absence", unreadable)
    world.server.while_loading = lambda: _make_empty(world.drive / "only-old", world.drive / "only-new")

    with pytest.raises(ToolFailedError, match="The previous data is back"):
        await world.recipe().restore(world.record, world.progress)

    world.require_whole(Recovered.PREVIOUS)


@pytest.mark.parametrize("only", ["both1", "only-new"])
async def test_one_bucket_comes_and_goes_without_a_restart(only: str, make_world: MakeWorld) -> None:
    world = make_world(only=only)

    await world.recipe().restore(world.record, world.progress)
    world.require_whole(Recovered.IMPORTED)
    await world.recipe().undo(world.record, world.progress)

    world.require_whole(Recovered.PREVIOUS)
    assert world.server.restarts == 0


WRITES = "1 @ 0x48ec0e\n#\t0x48ec0e\tgithub.com/minio/minio/cmd.(*xlStorage).RenameData+0x5\tx.go:1\n"


@pytest.mark.parametrize("only", ["", "both1"], ids=["everything", "one bucket"])
@pytest.mark.parametrize("side", [Recovered.IMPORTED, Recovered.PREVIOUS], ids=["a restore", "an undo"])
async def test_a_write_that_began_before_the_freeze_finds_no_bucket_and_is_waited_for(
    side: Recovered, only: str, make_world: MakeWorld
) -> None:
    world = make_world(only=only)
    if side is Recovered.PREVIOUS:
        await world.recipe().restore(world.record, world.progress)
    buckets = [world.drive / name for name in ("both1", "only-old") if name == only or not only]
    met: list[list[Path]] = []

    def stacks() -> str:
        met.append([path for path in buckets if path.exists()])
        return "" if len(met) == 3 else WRITES

    world.server.stacks = stacks

    if side is Recovered.IMPORTED:
        await world.recipe().restore(world.record, world.progress)
    else:
        await world.recipe().undo(world.record, world.progress)

    world.require_whole(side)
    assert met == [[]] * 3


@pytest.mark.parametrize("bucket", ["both1", "only-old"], ids=["one that is replaced", "one that goes"])
async def test_a_write_of_a_new_object_that_makes_the_bucket_anew_is_in_the_previous_data(
    bucket: str, make_world: MakeWorld
) -> None:
    world = make_world()
    (world.drive / bucket / "folder").mkdir()
    stacks = [WRITES, ""]

    def write() -> str:
        if len(stacks) == 2:
            # Where its directory is missing, MinIO makes that of the bucket too.
            (world.drive / bucket / "folder" / "new").mkdir(parents=True)
            (world.drive / bucket / "folder" / "new" / "xl.meta").write_text("acknowledged")
        return stacks.pop(0)

    world.server.stacks = write
    await world.recipe().restore(world.record, world.progress)
    world.server.stacks = lambda: ""

    world.require_whole(Recovered.IMPORTED)
    assert not (world.drive / bucket / "folder").exists()
    await world.recipe().undo(world.record, world.progress)
    world.require_whole(Recovered.PREVIOUS)
    assert (world.drive / bucket / "folder" / "new" / "xl.meta").read_text() == "acknowledged"


@pytest.mark.parametrize("only", ["", "both1"], ids=["everything", "one bucket"])
async def test_a_server_that_never_rests_keeps_its_data(
    only: str, make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quiet, "_WRITES_SECONDS", 0)
    world = make_world(only=only)
    world.server.stacks = lambda: WRITES

    with pytest.raises(AppBusyError, match="the data is as it was"):
        await world.recipe().restore(world.record, world.progress)

    world.require_whole(Recovered.PREVIOUS)
    world.server.stacks = lambda: ""
    await world.recipe().restore(world.record, world.progress)
    world.require_whole(Recovered.IMPORTED)


@pytest.mark.parametrize("only", ["", "both1"], ids=["everything", "one bucket"])
async def test_what_was_interrupted_is_finished_also_where_the_server_never_rests(
    only: str, make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quiet, "_WRITES_SECONDS", 0)
    world = make_world(only=only)
    world.begin(crash_at=3)
    with pytest.raises(CrashError):
        await world.recipe().restore(world.record, world.progress)
    world.begin()
    world.server.stacks = lambda: WRITES

    assert await world.recipe().recover(world.record) is Recovered.IMPORTED

    world.require_whole(Recovered.IMPORTED)


async def test_a_server_that_does_not_reload_a_bucket_is_restarted(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(only="both1")
    call = world.server.call

    async def refusing(method: str, *arguments: str, **options: object) -> object:
        if method == "PUT" and options.get("query") == {"notification": ""}:
            raise ToolFailedError("no such call")
        return await call(method, *arguments, **options)  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(world.server, "call", refusing)

    await world.recipe().restore(world.record, world.progress)

    world.require_whole(Recovered.IMPORTED)
    assert world.server.restarts == 1
