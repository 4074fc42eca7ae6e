"""Whose data lies in a directory, by what is in it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from agent.engines.pg.server import data_directories
from agent.engines.pg.server.data_directories import Cluster, belongs, find_directory

CLUSTER = Cluster(number=(1 << 63) + 5, port=5433)


def make_directory(directory: Path, *, number: int = CLUSTER.number, port: int | None = CLUSTER.port) -> Path:
    """As a server has it; without a port none runs on it."""
    (directory / "global").mkdir(parents=True)
    (directory / "PG_VERSION").write_text("17\n")
    (directory / "global" / "pg_control").write_bytes(number.to_bytes(8, sys.byteorder) + bytes(300))
    if port is not None:
        (directory / "postmaster.pid").write_text(f"123\n{directory}\n1700000000\n{port}\n/tmp\nlocalhost\n")
    return directory


def test_a_directory_is_told_by_number_and_port(tmp_path: Path) -> None:
    assert belongs(make_directory(tmp_path / "own"), CLUSTER) is True
    assert belongs(make_directory(tmp_path / "another", number=7), CLUSTER) is False
    assert belongs(make_directory(tmp_path / "standby", port=5434), CLUSTER) is False
    assert belongs(make_directory(tmp_path / "copy", port=None), CLUSTER) is False
    assert belongs(tmp_path, CLUSTER) is False


def test_nothing_is_known_of_a_directory_that_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    directory = make_directory(tmp_path / "own")
    monkeypatch.setattr(Path, "open", refuse)

    assert belongs(directory, CLUSTER) is None


@pytest.mark.parametrize("below", [".", "data", "17/docker"])
def test_it_is_found_in_a_mount_and_two_levels_below(
    below: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_directory(tmp_path / "another", number=7)
    directory = make_directory(tmp_path / "volume" / below)
    monkeypatch.setattr(data_directories, "_mounts", lambda: iter([tmp_path / "another", tmp_path / "volume"]))

    assert find_directory(CLUSTER) == directory


def test_a_mount_with_many_files_is_not_looked_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_directories, "_mounts", lambda: iter([tmp_path]))
    monkeypatch.setattr(data_directories, "_MOST_ENTRIES", 0)
    make_directory(tmp_path / "data")

    assert find_directory(CLUSTER) is None
