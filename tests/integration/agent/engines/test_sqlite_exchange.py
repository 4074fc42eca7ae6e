"""Databases exchanged under a running app."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import sqlite3
from pathlib import Path

import pytest

from agent.engines import sqlite_snapshots
from agent.engines.sqlite_exchange import import_live
from agent.processes import ChildKilledError
from common.errors import AppBusyError
from tests.fixtures.children import agent_children
from tests.fixtures.ledgers import TOTAL, Writer, make_ledger, mode_of, state_of
from tests.fixtures.waiting import until


@pytest.mark.parametrize(
    ("live_mode", "staged_mode", "page_size"),
    [("wal", "delete", 4096), ("wal", "wal", 8192), ("delete", "wal", 512), ("delete", "delete", 4096)],
)
async def test_a_running_app_sees_all_of_the_old_then_all_of_the_new(
    live_mode: str, staged_mode: str, page_size: int, tmp_path: Path
) -> None:
    (tmp_path / "staged").mkdir()
    staged, live = tmp_path / "staged" / "new.db", tmp_path / "live.db"
    make_ledger(staged, tag="new", rows=400, mode=staged_mode, page_size=page_size)
    make_ledger(live, tag="old", mode=live_mode)

    with Writer(live) as writer:
        await import_live(staged, live)

    assert state_of(live) == (TOTAL, "new")
    assert mode_of(live) == live_mode
    assert writer.report["errors"] == {}
    assert set(writer.report["seen"]) <= {f"old {TOTAL}", f"new {TOTAL}"}


async def test_a_killed_import_leaves_all_of_the_old_or_all_of_the_new(tmp_path: Path) -> None:
    (tmp_path / "staged").mkdir()
    staged, live = tmp_path / "staged" / "new.db", tmp_path / "live.db"
    make_ledger(staged, tag="new", rows=10_000, padding=3000, mode="delete")
    make_ledger(live, tag="old")
    choice = random.Random(1)
    outcomes = []

    with contextlib.closing(sqlite3.connect(live)) as app:
        app.execute("SELECT * FROM tag").fetchone()
        for _ in range(8):
            importing = asyncio.create_task(import_live(staged, live))
            await until(functools.partial(is_writing_or_done, live, importing))
            await asyncio.sleep(choice.random() * 0.3)
            for child in agent_children():
                child.kill()
            (outcome,) = await asyncio.gather(importing, return_exceptions=True)

            total, tag = state_of(live)
            outcomes.append((type(outcome), tag))
            assert total == TOTAL
            if outcome is None:
                assert tag == "new"
                app.execute("UPDATE tag SET tag = 'old'")
                app.commit()

    assert (ChildKilledError, "old") in outcomes


def is_writing_or_done(live: Path, importing: asyncio.Task[None]) -> bool:
    wal = Path(f"{live}-wal")
    return importing.done() or (wal.exists() and wal.stat().st_size > 1 << 20)


async def test_an_import_into_a_locked_database_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_snapshots, "BUSY_SECONDS", 0.2)
    (tmp_path / "staged").mkdir()
    make_ledger(tmp_path / "staged" / "new.db", tag="new")
    make_ledger(tmp_path / "live.db", tag="old", mode="delete")
    with contextlib.closing(sqlite3.connect(tmp_path / "live.db", isolation_level=None)) as app:
        app.execute("BEGIN IMMEDIATE")

        with pytest.raises(AppBusyError):
            await import_live(tmp_path / "staged" / "new.db", tmp_path / "live.db")

        app.execute("ROLLBACK")
    assert state_of(tmp_path / "live.db") == (TOTAL, "old")
