"""Volumes under an ordinary user, whoever runs the tests; and in processes that are killed."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.engines.swapping import Side, Swap
from agent.engines.tree import StagingArea
from tests.fixtures import forked
from tests.fixtures.archives import DIRECTORY, entry, tar_of
from tests.fixtures.ledgers import make_ledger
from tests.integration.agent.recipes import volume_program

USER = 1500 if os.geteuid() == 0 else os.geteuid()
KEY = "0123456789ab"
_PROGRAM = "tests.integration.agent.recipes.volume_program"


@pytest.fixture
def users_directory() -> Iterator[Path]:
    """Belongs to the ordinary user, as everything on the way to it lets it pass."""
    directory = Path(tempfile.mkdtemp(prefix="volume-of-user-", dir="/tmp"))
    os.chown(directory, USER, USER if os.geteuid() == 0 else -1)
    directory.chmod(0o755)
    yield directory
    for path in [directory, *directory.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
    shutil.rmtree(directory)


def argv(action: str, directory: Path, *arguments: object, user: int) -> list[str]:
    return [sys.executable, "-m", _PROGRAM, action, str(user), str(directory), *map(str, arguments)]


def run(action: str, directory: Path, *arguments: object, user: int = USER) -> dict[str, Any]:
    done = subprocess.run(
        argv(action, directory, *arguments, user=user),
        cwd=Path(__file__).parents[4],
        stdout=subprocess.PIPE,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_nasty_volume_goes_out_and_in_as_an_ordinary_user(users_directory: Path) -> None:
    found = run("round-trip", users_directory / "volume")

    assert found == {"uid": USER, "warnings": [], "is_equal": True, "has_leftovers": False}


def test_a_root_that_may_not_become_nobody_takes_what_it_exported(tmp_path: Path) -> None:
    found = run("round-trip", tmp_path / "volume", user=os.geteuid())

    assert found == {"uid": os.geteuid(), "warnings": [], "is_equal": True, "has_leftovers": False}


def test_other_peoples_files_become_the_users_own_and_are_counted(users_directory: Path) -> None:
    other = USER + 1
    archive = users_directory / "foreign.tar"
    archive.write_bytes(tar_of(entry("a", b"1", uid=other, gid=other), entry("b", b"1", uid=other, gid=other)))
    archive.chmod(0o644)

    found = run("foreign", users_directory / "volume", archive)

    assert found["owners"] == [USER]
    assert found["warnings"] == ["2 entries belong to another user than in the archive: the agent is not root."]


@pytest.mark.parametrize("user", [USER, os.geteuid()])
def test_a_directory_closed_to_everybody_is_exchanged(user: int, tmp_path: Path, users_directory: Path) -> None:
    directory = users_directory if user == USER else tmp_path
    archive = directory / "closed.tar"
    archive.write_bytes(tar_of(entry("closed", type=DIRECTORY, mode=0), entry("open", b"1")))
    archive.chmod(0o644)

    run("foreign", directory / "volume", archive, user=user)

    assert (directory / "volume" / "closed").stat().st_mode & 0o777 == 0


def test_what_an_archive_that_root_unpacked_by_hand_left_is_an_obstacle_by_name(users_directory: Path) -> None:
    volume = users_directory / "volume"
    (volume / ".mathison-data").mkdir(parents=True)
    os.chown(volume, USER, -1)

    obstacle = run("obstacle", volume)["obstacle"]

    if os.geteuid() == 0:
        assert f".mathison-data in {volume}" in obstacle
        assert "is not its own: it belongs to uid 0, not to the agent (uid 1500). Move it away" in obstacle
    else:
        assert obstacle == ""


def test_a_directory_of_another_user_is_no_way_to_an_import(users_directory: Path) -> None:
    volume = users_directory / "volume"
    (volume / "theirs").mkdir(parents=True)
    os.chown(volume, USER, -1)

    found = run("export", volume)
    obstacle = run("obstacle", volume)["obstacle"]

    assert found == {"reason": ""}
    if os.geteuid() == 0:
        assert "'theirs' in" in obstacle
        assert "cannot be moved: it is a directory of uid 0 that the agent (uid 1500) may not write to" in obstacle
    else:
        assert obstacle == ""


def test_unreadable_files_fail_an_export_and_are_listed(users_directory: Path) -> None:
    volume = users_directory / "volume"
    (volume / "closed").mkdir(parents=True)
    for name in ("secret", "closed/inside", "open"):
        (volume / name).write_text("1")
    for path in [volume, *volume.rglob("*")]:
        os.chown(path, USER, -1)
    (volume / "secret").chmod(0)
    (volume / "closed").chmod(0)

    found = run("unreadable", volume)

    assert found["reason"] == "SOURCE_UNREADABLE"
    assert "may not read 'closed', 'secret'; without them" in found["text"]


def test_a_wal_database_of_another_user_fails_an_export_and_is_not_touched_and_an_own_one_does_not(
    users_directory: Path,
) -> None:
    volume = users_directory / "volume"
    volume.mkdir(mode=0o777)
    volume.chmod(0o777)
    make_ledger(volume / "app.db")  # belongs to whoever runs the tests
    (volume / "app.db").chmod(0o644)

    found = run("export", volume)

    if os.geteuid() == 0:
        assert found["reason"] == "SOURCE_UNREADABLE"
        assert "it belongs to uid 0 and this is uid 1500" in found["text"]
    else:
        assert found == {"reason": ""}
    assert os.listdir(volume) == ["app.db"]


def test_a_killed_swap_is_always_entirely_on_one_side(users_directory: Path) -> None:
    volume = users_directory / "volume"
    volume.mkdir()
    area = StagingArea(volume, KEY)
    area.create()
    content = {Side.PREVIOUS: "old", Side.IMPORTED: "new"}
    for side, directory in ((Side.PREVIOUS, volume), (Side.IMPORTED, area.new)):
        for number in range(200):
            (directory / f"{number}").write_text(content[side])
    Swap(volume, KEY).note_staged()
    for path in [volume, *volume.rglob("*")]:
        os.chown(path, USER, -1)
    choice = random.Random(3)

    for _ in range(8):
        began = users_directory / "began"
        process = forked.start(volume_program.swap_for_ever, USER, volume, KEY, began)
        while not began.exists():
            assert process.is_alive()
        began.unlink()
        # Any moment will do.
        time.sleep(choice.random() * 0.2)
        process.kill()
        process.join()

        # As who recovers is the one whose area it is.
        for path in (area.new.parent.parent, area.new.parent):
            os.chown(path, os.geteuid(), -1)
        in_place = Swap(volume, KEY).recover()
        assert in_place is not None
        for path in (area.new.parent.parent, area.new.parent):
            os.chown(path, USER, -1)

        texts = {path.read_text() for path in volume.iterdir() if path.is_file()}
        assert texts == {content[in_place]}
        assert len(os.listdir(volume)) == 201
