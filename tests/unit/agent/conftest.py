"""What tests of the agent's core share: an app that is one file, its recipe, and its transfers."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from agent.history import History
from agent.journal import Journal
from agent.recipes.base import Limits, Surroundings
from agent.states import TransferState
from agent.transfers import TransferRules, Transfers
from tests.fakes.app_control import NoApp
from tests.fakes.clock import FakeClock
from tests.fakes.recipe import FakeRecipe
from tests.fixtures.uploads import frames

RULES = TransferRules(
    limits=Limits(archive_bytes=1000),
    keep_previous=dt.timedelta(hours=72),
    keep_staged=dt.timedelta(hours=1),
    idle_seconds=60,
    event_gap_seconds=0,
)


class Setting:
    """One app with its agent's core; `restart` is what the next agent finds."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = FakeClock()
        (directory / "app").mkdir()
        (directory / "app" / "live").write_bytes(b"old data")
        self.restart()

    def restart(self, *, rules: TransferRules = RULES) -> None:
        """A new recipe and new transfers over what is on disk."""
        surroundings = Surroundings(
            app_id="shop.db",
            work_directory=self.directory,
            limits=rules.limits,
            app_control=NoApp(),
            settings={"directory": str(self.directory / "app")},
        )
        self.recipe = FakeRecipe(surroundings)
        self.transfers = Transfers(
            self.recipe,
            app_id="shop.db",
            made_by="test",
            journal=Journal(self.directory / "journal", app_id="shop.db", recipe="fake"),
            history=History(self.directory / "history.json"),
            rules=rules,
            clock=self.clock,
        )

    @property
    def journal_lines(self) -> int:
        return len(list((self.directory / "journal").glob("*.json")))

    def rewrite_journal(self, version: str, other: str) -> None:
        """Have all lines be of another version."""
        for path in (self.directory / "journal").glob("*.json"):
            content = path.read_text()
            assert f'"version":{version},' in content
            path.write_text(content.replace(f'"version":{version},', f'"version":{other},'))

    async def stage(self, transfer_id: str, content: bytes = b"new data", *, dry_run: bool = False) -> TransferState:
        """Stage an upload; the last state."""
        states = self.transfers.stage(transfer_id, frames(content), {}, dry_run=dry_run)
        return [state async for state in states][-1]

    async def restore(self, transfer_id: str) -> TransferState:
        return [state async for state in self.transfers.restore(transfer_id)][-1]

    async def undo(self, transfer_id: str = "") -> TransferState:
        return [state async for state in self.transfers.undo(transfer_id)][-1]

    async def run_import(self, transfer_id: str, content: bytes = b"new data") -> TransferState:
        """Stage and restore."""
        await self.stage(transfer_id, content)
        return await self.restore(transfer_id)

    def state(self, transfer_id: str) -> TransferState:
        """As the list of transfers shows it."""
        return next(state for state in self.transfers.list() if state.transfer_id == transfer_id)


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(tmp_path)
