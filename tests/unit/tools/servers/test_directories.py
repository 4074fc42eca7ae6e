"""tools/servers/directories.py: short folders, swept up after killed runs and only then."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import pytest

from tools.servers import directories
from tools.servers.directories import OWNED, short_directory, sweep, temporary_root


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(directories, "temporary_root", lambda: tmp_path)
    return tmp_path


def left_by(root: Path, *, age_seconds: float) -> Path:
    folder = root / "mathison-pg-left"
    folder.mkdir()
    (folder / OWNED).touch()
    moment = time.time() - age_seconds
    os.utime(folder, (moment, moment))
    return folder


def test_a_folder_is_open_to_others_and_gone_afterwards() -> None:
    with short_directory("x") as folder:
        assert folder.stat().st_mode & 0o777 == 0o755

    assert not folder.exists()


def test_a_folder_whose_maker_is_dead_is_removed(root: Path) -> None:
    folder = left_by(root, age_seconds=3600)

    sweep()

    assert not folder.exists()


def test_a_young_folder_is_left_alone(root: Path) -> None:
    folder = left_by(root, age_seconds=5)

    sweep()

    assert folder.exists()


def test_a_folder_whose_maker_lives_is_left_alone(root: Path) -> None:
    folder = left_by(root, age_seconds=3600)

    with (folder / OWNED).open("w") as owned:
        fcntl.flock(owned, fcntl.LOCK_EX)
        sweep()

    assert folder.exists()


def test_a_folder_without_the_mark_is_not_ours(root: Path) -> None:
    folder = left_by(root, age_seconds=3600)
    (folder / OWNED).unlink()
    os.utime(folder, (0, 0))

    sweep()

    assert folder.exists()


def test_a_temporary_folder_with_a_long_path_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("long" * 20)
    long.mkdir()
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(long))

    assert temporary_root() == Path("/tmp")
