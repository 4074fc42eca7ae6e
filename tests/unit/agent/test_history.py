"""The finished transfers that an agent remembers."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from agent.history import History
from agent.states import Kind, TransferState

MOMENT = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)


def test_it_keeps_the_last_hundred(tmp_path: Path) -> None:
    history = History(tmp_path / "history.json")

    history.write(
        TransferState(transfer_id=f"t-{number}", kind=Kind.IMPORT, started_at=MOMENT) for number in range(150)
    )

    assert [found.transfer_id for found in history.read()] == [f"t-{number}" for number in range(50, 150)]


@pytest.mark.parametrize("content", [None, b"", b"[{]", b'[{"transfer_id": 7}]'])
def test_one_that_cannot_be_used_is_an_empty_one(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "history.json").write_bytes(content)

    assert History(tmp_path / "history.json").read() == []


def test_one_that_the_disk_does_not_give_is_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "history.json").mkdir()

    assert History(tmp_path / "history.json").read() == []
