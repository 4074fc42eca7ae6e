"""The agent is killed in the middle of an import of Uptime Kuma: the next one brings all of it to one side."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from pathlib import Path

import pytest

from agent.journal import Entry, Journal
from agent.recipes.base import Recovered
from agent.states import Kind, TransferState
from tests.fakes.imports import NotedProgress
from tests.fixtures.kuma_apps import KUMA_1_LIVE, KUMA_2, KumaApp, set_of
from tests.integration.agent.recipes.conftest import NotedApp
from tests.integration.agent.recipes.kuma_program import MOMENTS

CHECKOUT = Path(__file__).parents[4]


async def stage(directory: Path) -> tuple[KumaApp, Entry]:
    """An app with data, and other data staged beside it, in a journal on disk."""
    kuma = KumaApp(directory / "kuma", NotedApp(), content=KUMA_2)
    state = TransferState(transfer_id="t-1", kind=Kind.IMPORT, started_at=dt.datetime.now(dt.UTC))
    entry = Journal(directory / "journal", app_id="shop.status", recipe="uptime-kuma").open(state)
    await kuma.stage(set_of(KUMA_1_LIVE), entry)
    return kuma, entry


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
async def test_an_agent_killed_in_the_exchange_is_recovered_from(action: str, moment: str, tmp_path: Path) -> None:
    kuma, entry = await stage(tmp_path)
    previous = await kuma.fingerprint()
    if action == "undo":
        await kuma.recipe.restore(entry, NotedProgress())
    imported = await kuma.fingerprint() if action == "undo" else None

    entry = die(kuma, action, moment)
    sides = [await kuma.recipe.recover(entry) for _ in range(2)]

    assert sides[0] is sides[1]
    found = await kuma.fingerprint()
    if sides[0] is Recovered.PREVIOUS:
        assert found.differences(previous) == []
        await kuma.recipe.discard(entry)
        assert not (kuma.directory / ".mathison-data").exists()
        return
    assert imported is None or found.differences(imported) == []
    assert kuma.execute("SELECT count(*) FROM heartbeat") == [(174,)]
    await kuma.recipe.undo(entry, NotedProgress())
    assert (await kuma.fingerprint()).differences(previous) == []
