"""The agent dies in the middle of an import of n8n: its data is entirely on one side then, and it is said on which."""

from __future__ import annotations

import asyncio
import datetime as dt
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.journal import Entry, Journal
from agent.recipes.base import Recovered
from agent.states import Kind, TransferState
from tests.fakes.imports import NotedProgress, upload_of
from tests.fixtures.n8n_data import NEW_KEY, OLD_KEY, N8n
from tests.integration.agent.recipes.n8n_apps import N8nApp, new_app
from tests.integration.agent.recipes.n8n_program import OF_A_STAGE, OF_A_SWAP

CHECKOUT = Path(__file__).parents[4]
PREVIOUS, IMPORTED = ["present 0"], ["first 0", "first 1", "first 2"]


@dataclass
class Import:
    """An import in a journal on disk."""

    target: N8nApp
    journal: Path
    archive: Path

    @property
    def entry(self) -> Entry:
        """What the journal says of it."""
        [entry] = Journal(self.journal, app_id="shop.n8n", recipe="n8n").read()
        return entry

    def die_at(self, moment: str, action: str) -> None:
        """Have a process go on with it, that kills itself then."""
        arguments = [action, moment, self.target.n8n.folder, self.journal, self.archive]
        ended = subprocess.run(
            [sys.executable, "-m", "tests.integration.agent.recipes.n8n_program", *map(str, arguments)],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ended.returncode == -9, ended.stderr

    async def stage(self) -> None:
        upload = upload_of(self.archive.read_bytes(), {"encryption_key": OLD_KEY})
        await self.target.recipe.stage(upload, self.entry, NotedProgress())

    async def recover(self) -> Recovered:
        """As the next agent does, twice; and see that all of it is on the side that it says, and readable."""
        found = [await self.target.recipe.recover(self.entry) for _ in range(2)]
        assert found[0] is found[1]
        self.require(found[0])
        return found[0]

    def require(self, side: Recovered) -> None:
        assert self.target.n8n.workflow_names() == (IMPORTED if side is Recovered.IMPORTED else PREVIOUS)
        assert self.target.n8n.secrets(NEW_KEY)["ldap"] == "ldap!"
        assert (self.target.n8n.folder / "config").exists()

    async def drop(self) -> None:
        await self.target.recipe.discard(self.entry)
        assert not self.target.has_leftovers


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    file = folder / "archive.tar"
    file.write_bytes(asyncio.run(N8nApp(N8n(folder / "n8n").make()).export()).content)
    return file


@pytest.fixture
async def one(archive: Path, tmp_path: Path) -> Import:
    state = TransferState(transfer_id="t-1", kind=Kind.IMPORT, started_at=dt.datetime.now(dt.UTC))
    Journal(tmp_path / "journal", app_id="shop.n8n", recipe="n8n").open(state)
    return Import(new_app(tmp_path / "target"), tmp_path / "journal", archive)


@pytest.mark.parametrize("moment", OF_A_STAGE)
async def test_an_agent_killed_while_staging_leaves_what_discard_removes(moment: str, one: Import) -> None:
    one.die_at(moment, "stage")

    await one.drop()

    one.require(Recovered.PREVIOUS)


@pytest.mark.parametrize("moment", OF_A_SWAP)
async def test_an_agent_killed_in_a_restore_is_recovered_from(moment: str, one: Import) -> None:
    await one.stage()
    one.die_at(moment, "restore")

    side = await one.recover()

    expected = Recovered.IMPORTED if moment in ("moving in", "exchanged", "starting") else Recovered.PREVIOUS
    assert side is expected
    if side is Recovered.IMPORTED:
        await one.target.recipe.undo(one.entry, NotedProgress())
    else:
        await one.drop()
    one.require(Recovered.PREVIOUS)


@pytest.mark.parametrize("moment", ["stopped", "moving out", "moving in", "starting"])
async def test_an_agent_killed_in_an_undo_is_recovered_from(moment: str, one: Import) -> None:
    await one.stage()
    await one.target.recipe.restore(one.entry, NotedProgress())
    one.die_at(moment, "undo")

    side = await one.recover()

    if side is Recovered.PREVIOUS:
        await one.drop()
    one.require(side)
