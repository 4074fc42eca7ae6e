"""A snapshot is what the drive was when its second pass ran, whatever happened since the first."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.engines.minio.drive import snapshot as snapshot_module
from agent.engines.minio.drive.snapshot import Snapshot, remove_snapshots
from common.errors import NoSpaceError, SourceUnreadableError, ToolFailedError

NAMES = [*(f"prefix{number}" for number in range(3)), *(f"object{number}" for number in range(6)), "xl.meta", "part.1"]
LONG_AGO_NS = time.time_ns() - 3600 * 1_000_000_000


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    drive = tmp_path / "drive"
    for bucket in ("one", "two"):
        (drive / bucket).mkdir(parents=True)
        for number in range(6):
            _put(drive / bucket / f"prefix{number % 2}" / f"object{number}", f"{bucket} {number}")
    _put(drive / ".minio.sys" / "config" / "config.json", "settings")
    _put(drive / ".minio.sys" / "config" / "iam" / "policies" / ".heal" / "policy.json", "a policy of that name")
    _put(drive / ".minio.sys" / "buckets" / "one" / ".metadata.bin", "settings of one")
    _put(drive / ".minio.sys" / "buckets" / ".usage.json", "made again")
    _put(drive / ".minio.sys" / "tmp" / "upload", "on its way")
    (drive / ".minio.sys" / "format.json").write_text("identity")
    (drive / "lost+found").mkdir()
    _age(drive)
    return drive


def _put(directory: Path, text: str) -> None:
    """As MinIO does: first the data, then the xl.meta, by rename; nothing where a name is taken by the other kind."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        return
    if (directory / "xl.meta").is_dir():
        return
    for old in directory.iterdir():
        if old.is_dir() and len(old.name) == 36:
            shutil.rmtree(old)
    data = directory / str(uuid.uuid4())
    data.mkdir()
    (data / "part.1").write_text(f"data of {text}")
    (directory / "new").write_text(f"XL2 {data.name} {text}")
    (directory / "new").rename(directory / "xl.meta")


def _rewrite(directory: Path, text: str) -> None:
    """As MinIO does when many objects are deleted at once: in place."""
    with (directory / "xl.meta").open("r+") as file:
        file.truncate()
        file.write(f"XL2 {text}")


def _age(drive: Path) -> None:
    """All of it is old."""
    for path in [*drive.rglob("*"), drive]:
        os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))


def _content(root: Path) -> dict[str, str | None]:
    """What a snapshot has to have of a drive; None for directories."""
    found: dict[str, str | None] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if name.startswith((".mathison-data", "lost+found", ".minio.sys/tmp", ".minio.sys/format.json")):
            continue
        if ".usage.json" not in name and name != ".minio.sys":
            found[name] = None if path.is_dir() else path.read_text()
    return found


@pytest.fixture
def snapshot(drive: Path, tmp_path: Path) -> Iterator[Snapshot]:
    snapshot = Snapshot(drive, "0123", work_directory=tmp_path, free_bytes=1)
    yield snapshot
    snapshot.remove()


def test_a_drive_that_does_not_change_is_looked_through_once(drive: Path, snapshot: Snapshot) -> None:
    snapshot.first_pass()
    snapshot.second_pass()

    assert _content(snapshot.directory) == _content(drive)
    assert snapshot.seen == 0


def test_what_a_server_puts_in_the_place_of_the_snapshot_is_not_written_to(
    drive: Path, snapshot: Snapshot, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("of the agent's machine")
    snapshot.first_pass()
    (drive / ".mathison-data").rename(drive / ".aside")
    planted = drive / ".mathison-data" / "export-0123" / "snapshot" / "one/prefix1/object1"
    shutil.copytree(drive / ".aside", drive / ".mathison-data")
    (planted / "xl.meta").unlink()
    (planted / "xl.meta").symlink_to(victim)
    _rewrite(drive / "one/prefix1/object1", "rewritten")

    snapshot.second_pass()

    assert victim.read_text() == "of the agent's machine"
    assert (snapshot.directory / "one/prefix1/object1/xl.meta").read_text() == "XL2 rewritten"
    snapshot.remove()
    assert list((drive / ".aside").iterdir()) == []
    assert planted.is_dir()


@pytest.mark.parametrize("what", ["a link in between", "a link", "a fifo"])
def test_what_a_server_puts_in_the_place_of_its_own_is_neither_followed_nor_waited_for(
    what: str, drive: Path, snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "object1").mkdir(parents=True)
    (elsewhere / "object1" / "xl.meta").write_text("of the agent's machine")
    entries = snapshot_module._entries

    def replaced(live: int, path: bytes) -> tuple[list[bytes], list[bytes]]:
        found = entries(live, path)
        if path == b"one/prefix1" and what == "a link in between":
            (drive / "one/prefix1").rename(drive / "one/aside")
            (drive / "one/prefix1").symlink_to(elsewhere)
        elif path == b"one/prefix1/object1" and what != "a link in between":
            meta = drive / "one/prefix1/object1/xl.meta"
            meta.unlink(missing_ok=True)
            meta.symlink_to(elsewhere / "object1" / "xl.meta") if what == "a link" else os.mkfifo(meta)
        return found

    monkeypatch.setattr(snapshot_module, "_entries", replaced)
    # Without one, it is no object.
    with contextlib.nullcontext() if what == "a fifo" else pytest.raises(SourceUnreadableError):
        snapshot.first_pass()

    assert not any("machine" in path.read_text() for path in snapshot.directory.rglob("xl.meta"))


def test_parts_are_linked_and_what_is_rewritten_is_copied(drive: Path, snapshot: Snapshot) -> None:
    snapshot.first_pass()
    [part] = (drive / "one/prefix0/object0").rglob("part.1")

    assert part.samefile(snapshot.directory / part.relative_to(drive))
    assert not (drive / "one/prefix0/object0/xl.meta").samefile(snapshot.directory / "one/prefix0/object0/xl.meta")


def test_what_changed_between_the_passes_is_as_it_became(drive: Path, snapshot: Snapshot) -> None:
    snapshot.first_pass()
    _put(drive / "one/prefix0/object0", "replaced")
    _rewrite(drive / "one/prefix1/object1", "rewritten")
    _put(drive / "one/prefix0/object0/below", "new, below an object")
    _put(drive / "two/new/prefix/object", "new")
    shutil.rmtree(drive / "two/prefix0/object2")
    shutil.rmtree(drive / "two/prefix1")
    (drive / "three").mkdir()
    _put(drive / ".minio.sys/buckets/three/.metadata.bin", "settings of three")
    wanted = _content(drive)

    snapshot.second_pass()
    _put(drive / "one/prefix0/object0", "after the snapshot")
    _rewrite(drive / "one/prefix0/object4", "after the snapshot")

    assert _content(snapshot.directory) == wanted
    assert snapshot.seen > 0


def test_changes_of_many_objects_are_all_followed_where_the_list_of_them_is_long(
    drive: Path, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_module, "_PIECE_BYTES", 256)
    objects = [drive / "one" / f"a-long-name-of-an-object-{number}" for number in range(600)]
    for path in objects:
        _put(path, "first")
    _age(drive)
    snapshot.first_pass()
    for path in objects:
        _rewrite(path, "rewritten")

    snapshot.second_pass()

    assert _content(snapshot.directory) == _content(drive)


@pytest.mark.parametrize("first", ["one/new", "one/new/xl.meta"])
def test_a_file_that_becomes_a_directory_between_the_passes_is_followed_and_so_is_the_other_way(
    first: str, drive: Path, snapshot: Snapshot
) -> None:
    [second] = {"one/new", "one/new/xl.meta"} - {first}
    _put(drive / first, "first")
    _age(drive)
    snapshot.first_pass()
    shutil.rmtree(drive / "one/new")
    _put(drive / second, "second")

    snapshot.second_pass()

    assert _content(snapshot.directory) == _content(drive)


def test_a_link_in_the_snapshot_is_removed_and_what_it_points_at_stays(
    drive: Path, snapshot: Snapshot, tmp_path: Path
) -> None:
    (drive / "one/kept").mkdir()
    _age(drive)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("of somebody else")
    snapshot.first_pass()
    (snapshot.directory / "one/kept").rmdir()
    (snapshot.directory / "one/kept").symlink_to(outside)
    (snapshot.directory / "one/other").symlink_to(outside)
    _put(drive / "one/new", "new")

    snapshot.second_pass()

    assert _content(snapshot.directory) == _content(drive)
    assert (outside / "file").read_text() == "of somebody else"


def test_a_bucket_that_goes_between_the_passes_is_not_in_it(drive: Path, snapshot: Snapshot) -> None:
    snapshot.first_pass()
    shutil.rmtree(drive / "two")
    shutil.rmtree(drive / ".minio.sys/buckets/one")

    snapshot.second_pass()

    assert _content(snapshot.directory) == _content(drive)


def _change(drive: Path, dice: random.Random) -> None:
    place = drive / dice.choice(("one", "two")) / "/".join(dice.choices(NAMES, k=dice.randrange(1, 4)))
    match dice.randrange(4):
        case 0 | 1:
            _put(place, f"{dice.random()}")
        case 2 if (place / "xl.meta").is_file():
            _rewrite(place, f"{dice.random()}")
        case _:
            shutil.rmtree(place, ignore_errors=True)


@pytest.mark.parametrize("seed", range(20))
def test_any_changes_between_the_passes_are_followed(seed: int, drive: Path, snapshot: Snapshot) -> None:
    dice = random.Random(seed)
    snapshot.first_pass()
    for _ in range(30):
        _change(drive, dice)

    snapshot.second_pass()

    assert _content(snapshot.directory) == _content(drive)


@pytest.mark.parametrize("seed", range(20))
def test_any_changes_while_it_catches_up_are_followed(
    seed: int, drive: Path, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that only what is later than the beginning counts as changed since.
    monkeypatch.setattr(snapshot_module, "_MARGIN_NS", 0)
    dice = random.Random(seed)
    look_again = Snapshot._look_again

    def changing(self: Snapshot, path: bytes) -> None:
        look_again(self, path)
        _change(drive, dice)

    snapshot.first_pass()
    for _ in range(15):
        _change(drive, dice)
    with monkeypatch.context() as patches:
        patches.setattr(Snapshot, "_look_again", changing)
        snapshot.catch_up()
    for _ in range(5):
        _change(drive, dice)

    snapshot.second_pass()

    assert _content(snapshot.directory) == _content(drive)


def test_what_was_caught_up_with_is_not_looked_at_again(
    drive: Path, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So long that all of it counts as changed since the first pass began.
    monkeypatch.setattr(snapshot_module, "_MARGIN_NS", 2 * 3600 * 1_000_000_000)
    snapshot.first_pass()
    monkeypatch.setattr(snapshot_module, "_MARGIN_NS", 0)
    snapshot.catch_up()
    before = snapshot.seen

    snapshot.second_pass()

    assert before > 0
    assert snapshot.seen == before


def test_a_snapshot_that_is_stopped_ends(snapshot: Snapshot, drive: Path) -> None:
    snapshot.stop()

    with pytest.raises(ToolFailedError, match="stopped"):
        snapshot.first_pass()

    snapshot.remove()
    assert not (drive / ".mathison-data").exists()


def test_a_snapshot_that_would_fill_the_drive_is_refused(
    drive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.engines.minio.drive.snapshot._ROOM_CHECKED_EVERY", 1)
    snapshot = Snapshot(drive, "0123", work_directory=tmp_path, free_bytes=1 << 60)

    with pytest.raises(NoSpaceError, match="on the drive"):
        snapshot.first_pass()

    snapshot.remove()


def test_what_exports_left_is_removed_and_what_imports_hold_is_not(drive: Path, snapshot: Snapshot) -> None:
    snapshot.first_pass()
    (drive / ".mathison-data" / "0123456789ab").mkdir()

    remove_snapshots(drive)

    assert os.listdir(drive / ".mathison-data") == ["0123456789ab"]
