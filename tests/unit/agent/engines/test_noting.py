"""A note is written entirely or not at all, into room that stands ready."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.engines import noting
from agent.engines.filesystem import opened_directory
from agent.engines.noting import has_as_many, write_note
from tests.fixtures.small_disks import NEEDS_A_SMALL_DISK, fill, tmpfs


@pytest.fixture(params=["names change places", "names do not change places"])
def area(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    if request.param == "names do not change places":
        monkeypatch.setattr(noting, "exchange_names", lambda one, other, *, parent: False)
    with opened_directory(tmp_path) as opened:
        yield opened


def test_a_shorter_note_after_a_longer_one_holds_nothing_of_it(area: int, tmp_path: Path) -> None:
    for length in (300, 5, 200, 1):
        write_note("note", json.dumps({"a": "b" * length}).encode(), room_bytes=10, area=area)

        assert json.loads((tmp_path / "note").read_text()) == {"a": "b" * length}


def test_what_a_crash_left_half_written_is_written_over(area: int, tmp_path: Path) -> None:
    write_note("note", b"{}", room_bytes=10, area=area)
    (tmp_path / "note.new").write_text('{"half')

    write_note("note", b"[1]", room_bytes=10, area=area)

    assert json.loads((tmp_path / "note").read_text()) == [1]
    assert (tmp_path / "note.new").stat().st_size >= 10


def test_a_note_that_cannot_be_written_stays(area: int, tmp_path: Path) -> None:
    write_note("note", b"{}", room_bytes=10, area=area)
    (tmp_path / "note.new").unlink()
    (tmp_path / "note.new").mkdir()

    with pytest.raises(OSError, match="directory"):
        write_note("note", b"[1]", room_bytes=10, area=area)

    assert json.loads((tmp_path / "note").read_text()) == {}


@NEEDS_A_SMALL_DISK
@pytest.mark.parametrize("of_files", [False, True])
def test_notes_within_their_room_are_written_on_a_full_disk(of_files: bool, tmp_path: Path) -> None:
    small = tmp_path / "small"
    with tmpfs(small, "-o", "size=2m,nr_inodes=200"), opened_directory(small) as area:
        write_note("note", b"{}", room_bytes=20_000, area=area)
        fill(small, of_files=of_files)

        for size in (10_000, 1, 20_000):
            write_note("note", b"1" * size, room_bytes=30_000, area=area)
            assert (small / "note").read_bytes().rstrip() == b"1" * size

        if not of_files:
            with pytest.raises(OSError, match="No space"):
                write_note("note", b"1" * 50_000, room_bytes=30_000, area=area)
        assert (small / "note").read_bytes().rstrip() == b"1" * 20_000


def test_what_was_counted_is_missed_to_the_last(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    with opened_directory(tmp_path) as directory:
        found = [has_as_many(directory, noted) for noted in (0, 2, 3)]
        os.rmdir(tmp_path / "a" / "b")
        os.rmdir(tmp_path / "a")

        assert (found, has_as_many(directory, 2)) == ([True, True, False], False)
