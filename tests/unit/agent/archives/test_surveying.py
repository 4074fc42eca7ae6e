"""Counting a directory without reading it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.archives.surveying import survey
from agent.archives.walking import Unreadable, left_out_by
from common.errors import SourceUnreadableError


def fill(directory: Path) -> None:
    (directory / "d" / "e").mkdir(parents=True)
    (directory / "d" / "file").write_bytes(b"x" * 10_000)
    (directory / "d" / "e" / "app.db").write_bytes(b"SQLite format 3\0" + bytes(1000))
    (directory / "link").symlink_to("d")
    os.mkfifo(directory / "fifo")
    with (directory / "sparse").open("wb") as file:
        file.truncate(1 << 30)


def test_everything_is_counted_and_holes_are_not(tmp_path: Path) -> None:
    fill(tmp_path)

    counted = survey(tmp_path, seconds=60, find_databases=True)

    assert (counted.files, counted.directories, counted.symlinks, counted.others) == (3, 2, 1, 1)
    assert counted.entries == 6
    assert counted.bytes == 10_000 + 1016
    assert counted.databases == 1
    assert counted.owners == [f"{os.getuid()}:{os.getgid()}"]
    assert counted.is_complete


def test_what_lies_under_a_name_is_told_apart_when_it_changes(tmp_path: Path) -> None:
    fill(tmp_path)
    before = survey(tmp_path, seconds=60).tops

    (tmp_path / "d" / "e" / "app.db").write_bytes(b"shorter")

    after = survey(tmp_path, seconds=60).tops
    assert before["d"] != after["d"]
    assert before["sparse"] == after["sparse"]
    assert before["d"].entries == 4


def test_the_same_file_with_other_holes_did_not_change(tmp_path: Path) -> None:
    for name in ("allocated", "sparse"):
        (tmp_path / name).mkdir()
    (tmp_path / "allocated" / "a").write_bytes(bytes(1 << 20))
    (tmp_path / "sparse" / "a").touch()
    os.truncate(tmp_path / "sparse" / "a", 1 << 20)
    for name in ("allocated", "sparse"):
        os.utime(tmp_path / name / "a", (5, 5))

    allocated, sparse = (survey(tmp_path / name, seconds=60) for name in ("allocated", "sparse"))

    assert (allocated.bytes, sparse.bytes) == (1 << 20, 0)
    assert allocated.tops == sparse.tops


def test_a_count_that_takes_too_long_says_that_it_is_not_complete(tmp_path: Path) -> None:
    fill(tmp_path)

    assert not survey(tmp_path, seconds=-1).is_complete


def test_excluded_paths_are_not_counted(tmp_path: Path) -> None:
    fill(tmp_path)

    counted = survey(tmp_path, seconds=60, is_left_out=left_out_by(["d/e", "link"]))

    assert (counted.files, counted.directories, counted.symlinks) == (2, 1, 0)


def test_unreadable_paths_are_named_up_to_twenty() -> None:
    unreadable = Unreadable()
    for number in range(25):
        unreadable.add(f"file {number}")

    with pytest.raises(SourceUnreadableError, match="'file 19' and 5 more; without them") as raised:
        unreadable.raise_if_any()

    assert "file 20" not in raised.value.text
