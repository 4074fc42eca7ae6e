"""The agent dies while an archive of n8n is received, at the moments between two lines of its journal.

In the exchange it dies in tests/contract/test_n8n.py, and at every single step of it in
tests/unit/agent/engines/test_swapping.py.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from pathlib import Path

import pytest

from agent.journal import Journal
from agent.states import Kind, TransferState
from tests.fixtures import forked
from tests.fixtures.n8n_data import NEW_KEY, N8n
from tests.integration.agent.recipes import n8n_program
from tests.integration.agent.recipes.n8n_apps import N8nApp, new_app


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    app = N8nApp(N8n(tmp_path_factory.mktemp("source") / "n8n").make())
    return asyncio.run(app.export()).content


@pytest.mark.parametrize("moment", n8n_program.MOMENTS)
async def test_an_agent_killed_while_staging_leaves_what_discard_removes(
    moment: str, archive: bytes, tmp_path: Path
) -> None:
    target, journal = new_app(tmp_path / "target"), Journal(tmp_path / "journal", app_id="shop.n8n", recipe="n8n")
    journal.open(TransferState(transfer_id="t-1", kind=Kind.IMPORT, started_at=dt.datetime.now(dt.UTC)))
    forked.require_killed(n8n_program.die_at, moment, target.n8n.folder, tmp_path / "journal", archive)

    [entry] = journal.read()
    await target.recipe.discard(entry)

    assert not target.has_leftovers
    assert target.n8n.workflow_names() == ["present 0"]
    assert target.n8n.secrets(NEW_KEY)["ldap"] == "ldap!"
    assert (target.n8n.folder / "config").exists()
