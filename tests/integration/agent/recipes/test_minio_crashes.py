"""The agent, the server, or both die in the middle of an exchange: the data is on one side then, wholly.

Every step of it, and every pair of crashes, is in tests/unit/agent/engines/minio/test_crashes.py; here a real server
shows that it is as made up there.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.engines.minio.directory import swap
from agent.engines.minio.drive.exchange import has_unfinished
from agent.engines.minio.server.client import RefusedError
from agent.journal import Entry, Journal
from agent.recipes import minio_drive
from agent.recipes.base import Recovered
from agent.states import Kind, TransferState
from common.errors import InternalError
from tests.fixtures import forked
from tests.fixtures.minio_data import add_user, put, users, versions, view
from tests.fixtures.minio_servers import client_of
from tests.fixtures.variants import variants
from tests.fixtures.waiting import until
from tests.integration.agent.recipes import minio_program
from tests.integration.agent.recipes.minio_apps import MinioApp
from tools.servers import MinioServer, minio, short_directory

OLD, NEW = ["both1", "both2", "only-old"], ["both1", "both2", "only-new"]


class KilledError(BaseException):
    """The agent is gone."""


@dataclass
class Case:
    """A server with old data, and an archive with new data; every test leaves the old data."""

    server: MinioServer
    archive: bytes
    directory: Path
    previous: Any = None
    imported: Any = None
    entry: Entry | None = None

    @property
    def app(self) -> MinioApp:
        return MinioApp(self.server, self.directory)

    @property
    def journal(self) -> Path:
        return self.directory / "journal"

    async def stage(self, **options: str) -> None:
        """An import in a journal on disk."""
        state = TransferState(transfer_id="t-1", kind=Kind.IMPORT, started_at=dt.datetime.now(dt.UTC))
        entry = Journal(self.journal, app_id="shop.files", recipe="minio").open(state)
        await self.app.stage(self.archive, entry, **options)

    def is_whole(self) -> bool:
        """Whether one side's data is in place on the drive, whatever the server makes of it."""
        return not has_unfinished(self.server.drive)

    def die_at(self, moment: str, action: str = "restore") -> None:
        """Have a process go on with it, that kills itself then."""
        app = self.app
        settings = {
            "url": self.server.url,
            "user": self.server.user,
            "password_file": str(self.directory / "password"),
            "directory": str(self.server.drive),
        }
        forked.require_killed(minio_program.die_at, moment, action, settings, app.work_directory, self.journal)

    def read(self) -> Entry:
        """What the journal says of it."""
        [entry] = Journal(self.journal, app_id="shop.files", recipe="minio").read()
        return entry

    async def recover(self) -> Recovered:
        """As the next agent does, twice; and see that all of it is on the side that it says."""
        found = [await self.app.recover(self.read()) for _ in range(2)]
        assert found[0] is found[1]
        await self.require(found[0])
        return found[0]

    async def require(self, side: Recovered) -> None:
        """Everything is on that side, and the server serves at once."""
        is_imported = side is Recovered.IMPORTED
        assert await view(self.server) == (self.imported if is_imported else self.previous)
        assert await users(self.server) == ["user-new" if is_imported else "user-old"]

    async def take_back(self, side: Recovered) -> None:
        """To the previous data, with nothing left over."""
        if side is Recovered.IMPORTED:
            await self.app.recipe.undo(self.read(), self.app.progress)
        else:
            await self.app.recipe.discard(self.read())
        await self.require(Recovered.PREVIOUS)
        assert self.app.leftovers() == []
        self.read().remove()


async def _fill(server: MinioServer, buckets: list[str], tag: str) -> None:
    async with client_of(server) as client:
        for bucket in buckets:
            await client.call("PUT", bucket)
            tags = f"<Tagging><TagSet><Tag><Key>of</Key><Value>{tag}</Value></Tag></TagSet></Tagging>"
            await client.call("PUT", bucket, query={"tagging": ""}, body=tags.encode())
            for number in range(4):
                await put(client, bucket, f"key{number}", tag.encode() * (100_000 if number == 0 else 10))
        await add_user(client, f"user-{tag}", f"secret-of-{tag}")


@pytest.fixture(scope="module")
def made() -> Any:
    """The server and the archive that all tests of a process share."""
    with short_directory("minio-crashes") as folder, MinioServer(minio()) as source, MinioServer(minio()) as server:

        async def make() -> Case:
            await _fill(source, NEW, "new")
            await _fill(server, OLD, "old")
            archive = (await MinioApp(source, folder / "source").export()).file
            return Case(server, archive, folder / "agent", await view(server), await view(source))

        case = asyncio.run(make())
        source.close()
        yield case


@pytest.fixture
async def case(made: Case) -> AsyncIterator[Case]:
    """An import that is staged."""
    await made.stage()
    yield made
    if made.journal.exists():
        for entry in Journal(made.journal, app_id="shop.files", recipe="minio").read():
            entry.remove()


@variants("moment", ["three directories moved", "exchanged"])
async def test_an_agent_killed_in_a_restore_is_recovered_from(moment: str, case: Case) -> None:
    case.die_at(moment)
    await until(case.is_whole)
    side = await case.recover()

    assert side is (Recovered.IMPORTED if moment == "exchanged" else Recovered.PREVIOUS)
    await case.take_back(side)


@variants("moment", ["three directories moved", "exchanged"])
async def test_agent_and_server_killed_together_are_recovered_from(moment: str, case: Case) -> None:
    case.die_at(moment)
    case.server.kill()
    case.server.start()
    await until(case.is_whole)
    side = await case.recover()

    assert side is (Recovered.IMPORTED if moment == "exchanged" else Recovered.PREVIOUS)
    await case.take_back(side)


async def test_an_agent_that_starts_while_the_watchdog_of_a_killed_one_is_at_work_agrees_with_it(case: Case) -> None:
    case.die_at("three directories moved")

    await case.take_back(await case.recover())


@variants(
    ("action", "moment", "bucket"),
    [
        ("restore", "journal written", ""),
        ("restore", "one directory moved", ""),
        ("restore", "three directories moved", ""),
        ("restore", "all directories moved", ""),
        ("restore", "one directory moved", "both1"),
        ("undo", "one directory moved", ""),
        ("undo", "all directories moved", ""),
        ("undo", "one directory moved", "both1"),
    ],
    kept=[("restore", "three directories moved", ""), ("undo", "one directory moved", "both1")],
)
async def test_clients_of_an_agent_that_was_killed_miss_no_bucket_and_what_they_write_stays(
    action: str, moment: str, bucket: str, case: Case
) -> None:
    if bucket:
        await case.app.recipe.discard(case.read())
        case.read().remove()
        await case.stage(bucket=bucket)
    if action == "undo":
        await case.app.recipe.restore(case.read(), case.app.progress)
    before = await view(case.server)
    known = sorted(set(before) - {"hidden"})
    answers: list[int] = []
    acknowledged: dict[tuple[str, str], bytes] = {}

    async def write(number: int) -> None:
        async with client_of(case.server) as client:
            for turn in itertools.count():
                for name in known:
                    # As of what makes sure that its bucket is there.
                    try:
                        answers.append((await client.call("PUT", name)).status)
                    except RefusedError as refusal:
                        answers.append(refusal.status)
                    for key in (f"always{number}", f"once{number}-{turn}"):
                        await put(client, name, key, body := f"{turn}".encode())
                        acknowledged[name, key] = body

    writers = [asyncio.create_task(write(number)) for number in range(2)]
    await until(lambda: len(acknowledged) > 4 * len(known))
    await asyncio.to_thread(case.die_at, moment, action)
    await until(case.is_whole)
    answered = len(answers)
    await until(lambda: len(answers) > answered + 20 or any(writer.done() for writer in writers))
    for writer in writers:
        writer.cancel()
    ended = await asyncio.gather(*writers, return_exceptions=True)

    assert [str(end) for end in ended] == ["", ""]
    assert set(answers) == {409}
    assert await case.app.recover(case.read()) is (Recovered.PREVIOUS if action == "restore" else Recovered.IMPORTED)
    async with client_of(case.server) as client:
        for (name, key), body in acknowledged.items():
            # One more may have been on its way when its client went.
            assert int((await client.call("GET", name, key)).body) - int(body) in (0, 1)
        for name in known:
            for key, *_ in await versions(client, name):
                if key.startswith(("always", "once")):
                    await client.call("DELETE", name, key)
    assert await view(case.server) == before
    if action == "restore":
        await case.app.recipe.restore(case.read(), case.app.progress)
        if not bucket:
            await case.require(Recovered.IMPORTED)
    await case.take_back(Recovered.IMPORTED)


@pytest.mark.parametrize("moment", ["all directories moved"])
async def test_an_agent_killed_in_an_undo_is_recovered_from(moment: str, case: Case) -> None:
    app = case.app
    await app.recipe.restore(case.read(), app.progress)

    case.die_at(moment, "undo")
    await until(case.is_whole)
    side = await case.recover()

    assert side is Recovered.IMPORTED
    await case.take_back(side)


@pytest.mark.parametrize("is_begun", [False, True])
async def test_that_what_is_kept_is_gone_after_a_crash_in_an_undo_proves_nothing(
    is_begun: bool, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = case.app
    await app.recipe.restore(case.read(), app.progress)

    def die(*_: object) -> None:
        raise KilledError

    with monkeypatch.context() as killed:
        killed.setattr(swap if is_begun else minio_drive, "bring" if is_begun else "look", die)
        with pytest.raises(KilledError):
            await app.recipe.undo(case.read(), app.progress)
    kept, elsewhere = case.server.drive / ".mathison-data", case.server.drive.with_name("elsewhere")
    kept.rename(elsewhere)
    if is_begun:
        with pytest.raises(InternalError, match="nobody can tell how far it came"):
            await case.app.recover(case.read())
    else:
        assert await case.recover() is Recovered.IMPORTED

    elsewhere.rename(kept)
    assert await case.recover() is Recovered.IMPORTED
    await case.take_back(Recovered.IMPORTED)


async def test_an_interrupted_exchange_waits_for_a_server_that_is_down(case: Case) -> None:
    case.die_at("one directory moved")
    case.server.kill()
    await until(case.is_whole)

    with pytest.raises(Exception, match="does not answer"):
        await case.app.recover(case.read())

    case.server.start()
    assert await case.recover() is Recovered.PREVIOUS
    await case.take_back(Recovered.PREVIOUS)


async def test_an_agent_killed_in_an_export_leaves_the_server_serving_and_its_snapshot_goes(case: Case) -> None:
    await case.app.recipe.discard(case.read())
    case.die_at("frozen", "export")

    async with asyncio.timeout(10):
        assert await view(case.server) == case.previous
    assert case.app.leftovers() != []
    await case.app.recipe.tidy()
    assert case.app.leftovers() == []


async def test_a_server_that_was_left_frozen_goes_on_when_the_agent_starts(case: Case) -> None:
    await case.app.recipe.discard(case.read())
    async with client_of(case.server) as client:
        for _ in range(2):
            await client.admin("POST", "service", query={"action": "freeze"})

    await case.app.recipe.tidy()

    async with asyncio.timeout(10):
        assert await view(case.server) == case.previous
