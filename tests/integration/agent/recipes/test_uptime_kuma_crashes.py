"""The agent is killed in the middle of an import of Uptime Kuma: the next one brings all of it to one side."""

from __future__ import annotations

import asyncio
import datetime as dt
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.journal import Entry, Journal
from agent.recipes.base import Recovered
from agent.states import Kind, TransferState
from common.fingerprints import Fingerprint
from tests.fakes.imports import NotedProgress
from tests.fixtures.kuma_apps import KUMA_1_LIVE, KUMA_2, KumaApp, set_of
from tests.integration.agent.recipes.conftest import NotedApp
from tests.integration.agent.recipes.kuma_program import MOMENTS

CHECKOUT = Path(__file__).parents[4]


@dataclass(frozen=True)
class Kept:
    """An app with an import, kept as it was before each action, and put in place again for each test.

    Attributes:
        previous, imported: its content on either side.
    """

    place: Path
    originals: Path
    previous: Fingerprint
    imported: Fingerprint

    def put(self, action: str) -> KumaApp:
        shutil.rmtree(self.place)
        shutil.copytree(self.originals / action, self.place)
        return KumaApp(self.place / "kuma", NotedApp())


async def make(folder: Path) -> Kept:
    """An app with data and other data staged beside it, then in its place, in a journal on disk."""
    place, originals = folder / "place", folder / "originals"
    place.mkdir()
    kuma = KumaApp(place / "kuma", NotedApp(), content=KUMA_2)
    previous = await kuma.fingerprint()
    state = TransferState(transfer_id="t-1", kind=Kind.IMPORT, started_at=dt.datetime.now(dt.UTC))
    entry = Journal(place / "journal", app_id="shop.status", recipe="uptime-kuma").open(state)
    await kuma.stage(set_of(KUMA_1_LIVE), entry)
    shutil.copytree(place, originals / "restore")
    await kuma.recipe.restore(entry, NotedProgress())
    shutil.copytree(place, originals / "undo")
    return Kept(place, originals, previous, await kuma.fingerprint())


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """Staged once for all tests: what they are about is the exchange."""
    return asyncio.run(make(tmp_path_factory.mktemp("kept")))


def die(kuma: KumaApp, action: str, moment: str) -> Entry:
    """Have another process go on with it and kill itself then; what the journal says afterwards."""
    journal = kuma.directory.parent / "journal"
    ended = subprocess.run(
        [sys.executable, "-m", "tests.integration.agent.recipes.kuma_program", action, moment, kuma.directory, journal],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == -9, ended.stderr
    [entry] = Journal(journal, app_id="shop.status", recipe="uptime-kuma").read()
    return entry


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("action", ["restore", "undo"])
async def test_an_agent_killed_in_the_exchange_is_recovered_from(action: str, moment: str, kept: Kept) -> None:
    kuma = kept.put(action)

    entry = die(kuma, action, moment)
    sides = [await kuma.recipe.recover(entry) for _ in range(2)]

    assert sides[0] is sides[1]
    found = await kuma.fingerprint()
    if sides[0] is Recovered.PREVIOUS:
        assert found.differences(kept.previous) == []
        await kuma.recipe.discard(entry)
        assert not (kuma.directory / ".mathison-data").exists()
        return
    assert found.differences(kept.imported) == []
    await kuma.recipe.undo(entry, NotedProgress())
    assert (await kuma.fingerprint()).differences(kept.previous) == []
