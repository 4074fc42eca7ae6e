"""The volume app as its agent meets it: started, stopped, killed, wiped."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.demo import volume_app
from tools.demo.ledger import read_ledger


@pytest.fixture
def places(tmp_path: Path) -> Iterator[volume_app.Places]:
    found = volume_app.Places(tmp_path / "data", tmp_path / "runtime")
    found.data.mkdir()
    found.runtime.mkdir()
    yield found
    volume_app.stop(found)


def start(places: volume_app.Places, *, until_pid: int | None = None) -> None:
    volume_app.start(places, until_pid=until_pid, pause_seconds=0.001)


def wait_for_transfers(places: volume_app.Places, count: int) -> None:
    deadline = time.monotonic() + 20
    while read_ledger(places.data).transfers < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def wait_until_ended(places: volume_app.Places) -> None:
    deadline = time.monotonic() + 20
    while volume_app.running_pid(places) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_writes_and_its_ledger_is_right_at_any_moment(places: volume_app.Places) -> None:
    start(places)

    for count in range(20, 200, 20):
        wait_for_transfers(places, count)
        assert read_ledger(places.data).faults == ()


def test_stopped_it_leaves_a_database_in_one_file(places: volume_app.Places) -> None:
    start(places)
    wait_for_transfers(places, 10)

    volume_app.stop(places)

    assert volume_app.running_pid(places) is None
    assert sorted(path.name for path in places.data.iterdir()) == [volume_app.DATABASE, volume_app.LIVE_FOLDER]


def test_starting_twice_and_stopping_twice_is_fine(places: volume_app.Places) -> None:
    start(places)
    pid = volume_app.running_pid(places)
    start(places)

    assert volume_app.running_pid(places) == pid
    volume_app.stop(places)
    volume_app.stop(places)


def test_killed_and_started_again_its_ledger_is_right(places: volume_app.Places) -> None:
    start(places)
    wait_for_transfers(places, 50)
    pid = volume_app.running_pid(places)
    assert pid
    os.kill(pid, signal.SIGKILL)
    wait_until_ended(places)

    start(places)

    wait_for_transfers(places, 60)
    assert read_ledger(places.data).faults == ()


def test_it_ends_with_the_process_that_it_was_told(places: volume_app.Places) -> None:
    owner = subprocess.Popen(["sleep", "60"])
    start(places, until_pid=owner.pid)

    owner.kill()
    owner.wait()

    wait_until_ended(places)


def test_a_start_that_fails_says_why(places: volume_app.Places) -> None:
    places.database.write_bytes(b"this is no database" * 1000)

    with pytest.raises(volume_app.AppError, match="not a database"):
        start(places)


def test_a_ledger_that_was_mixed_from_two_moments_is_noticed(places: volume_app.Places) -> None:
    start(places)
    wait_for_transfers(places, 10)
    volume_app.stop(places)
    with sqlite3.connect(places.database) as database:
        database.execute("UPDATE wallets SET balance = balance + 1 WHERE id = 1")
        database.execute("UPDATE reserves SET balance = balance - 1 WHERE id = 1")
        database.execute("DELETE FROM transfers WHERE id = 5")
    database.close()

    faults = " ".join(read_ledger(places.data).faults)

    assert "the last of" in faults
    assert "1 wallets" in faults or "2 wallets" in faults
