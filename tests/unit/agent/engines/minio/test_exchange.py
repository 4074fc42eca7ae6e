"""An exchange ends entirely on one side, whatever interrupts it and whatever interrupts its recovery."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.engines.filesystem import renamed
from agent.engines.minio.drive import exchange
from agent.engines.minio.drive.exchange import Exchange
from agent.engines.swapping import Side
from agent.engines.tree import StagingArea
from agent.versions import UnknownVersionError
from common.errors import InternalError, ToolFailedError
from tests.fixtures.small_disks import NEEDS_A_SMALL_DISK, NEEDS_AN_EXT4, ext4, fill, tmpfs

KEY = "0123456789ab"
OLD = {
    ".minio.sys/buckets": "old",
    ".minio.sys/config": "old",
    ".minio.sys/tmp": "old",
    "both1": "old",
    "both1.aside": "old",
    "both2": "old",
    "only-old": "old",
}
NEW = {
    ".minio.sys/buckets": "new",
    ".minio.sys/config": "new",
    ".minio.sys/tmp": "old",
    "both1": "new",
    "both1.aside": "new",
    "both2": "new",
    "only-new": "new",
    "only-new.aside": "new",
}
SIDES = {Side.PREVIOUS: OLD, Side.IMPORTED: NEW}


class CrashError(BaseException):
    """The process is gone."""


class Steps:
    """Counts what changes the disk, and ends the process, or fails, at one of them."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.done = 0
        self.crash_at = 0
        self.fail_at: set[int] = set()
        patch.setattr(exchange, "renamed", self._counted(renamed))
        patch.setattr(Exchange, "_write", self._counted(Exchange._write))
        patch.setattr(exchange, "_rename", self._counted(exchange._rename))
        # A made-up crash loses nothing that is not durable.
        patch.setattr(exchange, "sync_filesystem", lambda descriptor: None)
        patch.setattr(os, "fsync", lambda descriptor: None)

    def restart(self, *, crash_at: int = 0) -> None:
        self.done, self.crash_at = 0, crash_at

    def _counted(self, step: Callable[..., object]) -> Callable[..., object]:
        def counted(*arguments: object, **options: object) -> object:
            self.done += 1
            if self.done == self.crash_at:
                raise CrashError
            if self.done in self.fail_at:
                raise OSError(errno.EIO, "Input/output error", "disk")
            return step(*arguments, **options)

        return counted


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


@pytest.fixture(params=["exchanged at once", "through a third name"])
def drive(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A drive with old data and new data staged, on a file system that can exchange directories or cannot."""
    if request.param == "through a third name":
        monkeypatch.setattr(exchange, "renamed", lambda *names, **parents: False)
    return _staged(tmp_path / "drive")


def _staged(drive: Path) -> Path:
    for name in OLD:
        _mark(drive / name, "old")
    (drive / ".minio.sys" / "format.json").write_text("the drive's own")
    area = StagingArea(drive, KEY)
    area.create()
    for name, text in NEW.items():
        if text == "new":
            _mark(area.new / name, text)
    return drive


def _mark(directory: Path, text: str) -> None:
    directory.mkdir(parents=True)
    (directory / "of").write_text(text)


def _content(drive: Path) -> dict[str, str]:
    found = {}
    for path in sorted(drive.rglob("of")):
        name = str(path.parent.relative_to(drive))
        if not name.startswith(".mathison-data"):
            found[name] = path.read_text()
    return found


def test_the_new_data_comes_and_the_old_comes_back(drive: Path) -> None:
    one = Exchange(drive, KEY)

    one.bring(Side.IMPORTED)
    imported = _content(drive)
    one.bring(Side.PREVIOUS)

    assert imported == NEW
    assert _content(drive) == OLD
    assert (drive / ".minio.sys" / "format.json").read_text() == "the drive's own"


def test_bringing_the_same_again_changes_nothing(drive: Path) -> None:
    one = Exchange(drive, KEY)
    one.bring(Side.IMPORTED)

    assert one.bring(Side.IMPORTED) == 0
    assert _content(drive) == NEW


def test_an_undo_takes_away_what_came_since(drive: Path) -> None:
    one = Exchange(drive, KEY)
    one.bring(Side.IMPORTED)
    _mark(drive / "since", "since")
    (drive / "both1" / "of").unlink()
    (drive / "both1").rmdir()

    one.bring(Side.PREVIOUS)

    assert _content(drive) == OLD


@pytest.mark.parametrize("gone", ["new", "new/only-old", "new/.minio.sys/buckets", "exchange.json"])
def test_previous_data_that_somebody_removed_some_of_is_not_kept(gone: str, drive: Path) -> None:
    one = Exchange(drive, KEY)
    before = one.keeps_previous()
    one.bring(Side.IMPORTED)
    kept = one.keeps_previous()
    path = drive / ".mathison-data" / KEY / gone
    away = path.rename(drive / "lost+found")
    partial = one.keeps_previous()
    away.rename(path)

    assert (before, kept, partial, one.keeps_previous()) == (False, True, False, True)


def test_where_there_was_nothing_all_of_it_is_kept(tmp_path: Path) -> None:
    drive = tmp_path / "drive"
    (drive / ".minio.sys").mkdir(parents=True)
    area = StagingArea(drive, KEY)
    area.create()
    _mark(area.new / "only-new", "new")
    one = Exchange(drive, KEY)
    one.bring(Side.IMPORTED)

    assert one.keeps_previous()


def test_without_a_configuration_of_its_own_an_import_leaves_the_servers(drive: Path) -> None:
    one = Exchange(drive, KEY)
    (StagingArea(drive, KEY).new / ".minio.sys/config/of").unlink()
    (StagingArea(drive, KEY).new / ".minio.sys/config").rmdir()

    one.bring(Side.IMPORTED)
    imported = _content(drive)
    one.bring(Side.PREVIOUS)

    assert imported == {**NEW, ".minio.sys/config": "old"}
    assert _content(drive) == OLD


def test_one_bucket_alone_is_exchanged_with_its_settings(drive: Path) -> None:
    for side, text in ((drive, "old"), (StagingArea(drive, KEY).new, "new")):
        _mark(side / ".minio.sys/buckets/both1", text)
    before = _content(drive)
    one = Exchange(drive, KEY, only="both1")

    one.bring(Side.IMPORTED)
    imported = _content(drive)
    one.bring(Side.PREVIOUS)

    assert imported == {**before, "both1": "new", ".minio.sys/buckets/both1": "new"}
    assert _content(drive) == before


@pytest.mark.parametrize("target", [Side.IMPORTED, Side.PREVIOUS])
def test_a_crash_at_any_step_and_another_at_any_step_of_the_recovery_end_on_one_side(
    target: Side, drive: Path, steps: Steps, tmp_path: Path
) -> None:
    crashes = 0
    for crash_at in range(1, 100):
        for second_crash_at in range(1, 100):
            here = _staged(tmp_path / f"{crash_at}-{second_crash_at}")
            steps.restart()
            if target is Side.PREVIOUS:
                Exchange(here, KEY).bring(Side.IMPORTED)
            steps.restart(crash_at=crash_at)
            try:
                Exchange(here, KEY).bring(target)
                return
            except CrashError:
                crashes += 1
            is_recovered = True
            steps.restart(crash_at=second_crash_at)
            try:
                Exchange(here, KEY).recover()
            except CrashError:
                is_recovered = False
            steps.restart()

            side = Exchange(here, KEY).recover()

            assert _content(here) == SIDES[side]
            assert side is (target if crash_at > 1 else target.other)
            assert not Exchange(here, KEY).is_unfinished()
            if is_recovered:
                break
    assert crashes > 20


def test_a_failure_at_any_step_leaves_the_data_as_it_was(drive: Path, steps: Steps, tmp_path: Path) -> None:
    for fail_at in range(1, 100):
        here = _staged(tmp_path / str(fail_at))
        steps.restart()
        steps.fail_at = {fail_at}
        one = Exchange(here, KEY)
        try:
            one.bring(Side.IMPORTED)
            break
        except ToolFailedError:
            pass

        assert _content(here) == OLD
        steps.fail_at = set()
        one.bring(Side.IMPORTED)
        assert _content(here) == NEW
    assert fail_at > 5


@NEEDS_A_SMALL_DISK
@pytest.mark.parametrize("of_files", [False, True])
def test_a_crash_at_any_step_on_a_full_drive_is_recovered_from(of_files: bool, steps: Steps, tmp_path: Path) -> None:
    for crash_at in range(1, 100):
        small = tmp_path / str(crash_at)
        with tmpfs(small, "-o", "size=2m,nr_inodes=200"):
            here = _staged(small / "drive")
            steps.restart()
            Exchange(here, KEY).note_kept()
            fill(small, of_files=of_files)
            steps.restart(crash_at=crash_at)
            try:
                Exchange(here, KEY).bring(Side.IMPORTED)
                break
            except CrashError:
                steps.restart()

            side = Exchange(here, KEY).recover()

            assert _content(here) == SIDES[side]
            Exchange(here, KEY).bring(side.other)
            assert _content(here) == SIDES[side.other]
    assert crash_at > 5


@NEEDS_AN_EXT4
def test_hundreds_of_buckets_are_taken_away_from_a_full_drive(tmp_path: Path) -> None:
    small = tmp_path / "small"
    with ext4(small, size_bytes=32 << 20):
        here = _staged(small / "drive")
        for number in range(400):
            _mark(here / f".mathison-data/{KEY}/new/bucket-{number}", "new")
        one = Exchange(here, KEY)
        one.note_kept()
        one.bring(Side.IMPORTED)
        one.note_kept()
        fill(small, of_files=False)

        one.bring(Side.PREVIOUS)

        assert _content(here) == OLD


def test_a_failure_before_anything_was_noted_leaves_the_journal_as_it_was(
    drive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Exchange(drive, KEY)
    with monkeypatch.context() as patch:
        patch.setattr(Exchange, "_planned", lambda self: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output")))
        with pytest.raises(ToolFailedError, match="it is as it was"):
            one.bring(Side.IMPORTED)

    assert one.side() is Side.PREVIOUS
    one.bring(Side.IMPORTED)
    assert _content(drive) == NEW


@pytest.mark.parametrize("change", [('"version": 2', '"version": 3'), ('"is_done"', '"has_ended"')])
def test_a_journal_that_another_agent_wrote_in_another_form_is_never_one_of_nothing(
    drive: Path, change: tuple[str, str]
) -> None:
    one = Exchange(drive, KEY)
    one.bring(Side.IMPORTED)
    journal = drive / ".mathison-data" / KEY / "exchange.json"
    written = journal.read_text()
    journal.write_text(written.replace(*change))

    for act in (one.recover, one.side, one.is_unfinished, lambda: one.bring(Side.PREVIOUS)):
        with pytest.raises((UnknownVersionError, InternalError)):
            act()

    # The first ones had no version.
    journal.write_text(written.replace(', "version": 2', ""))
    assert one.side() is Side.IMPORTED


def _inode_of(path: Path) -> int | None:
    return path.stat().st_ino if path.exists() else None


@pytest.mark.parametrize("target", [Side.IMPORTED, Side.PREVIOUS])
@pytest.mark.parametrize("moved", ["nothing", "the other's", "one's own, aside"])
def test_what_an_older_agent_left_half_exchanged_beside_a_bucket_of_such_a_name_is_finished(
    moved: str, target: Side, drive: Path
) -> None:
    new = StagingArea(drive, KEY).new
    paths = [name for name in {**OLD, **NEW} if not name.endswith("tmp")]
    inodes = {path: [_inode_of(drive / path), _inode_of(new / path)] for path in paths}
    if moved == "the other's":
        # It took `only-new.aside` for what it had laid aside of `only-new`.
        (new / "only-new").rename(drive / "only-new")
        (new / "only-new.aside").rename(new / "only-new")
    elif moved == "one's own, aside":
        (new / "both2").rename(new / "both2.aside")
        (drive / "both2").rename(new / "both2")
    order = 1 if target is Side.IMPORTED else -1
    journal = {
        "target": target.value,
        "is_done": False,
        "entries": [
            {"path": path, **dict(zip(("before", "after"), inodes[path][::order], strict=True))} for path in paths
        ],
    }
    (drive / ".mathison-data" / KEY / "exchange.json").write_text(json.dumps(journal))

    assert Exchange(drive, KEY).recover() is target

    assert _content(drive) == SIDES[target]
    Exchange(drive, KEY).bring(target.other)
    assert _content(drive) == SIDES[target.other]


@pytest.mark.parametrize("what", ["a fifo", "without an end"])
def test_a_journal_that_is_no_file_or_far_too_large_is_not_waited_for(what: str, drive: Path) -> None:
    journal = drive / ".mathison-data" / KEY / "exchange.json"
    if what == "a fifo":
        os.mkfifo(journal)
    else:
        with journal.open("wb") as file:
            file.truncate(100 << 30)

    one = Exchange(drive, KEY)
    for act in (one.recover, one.side, one.is_unfinished, one.tells, one.note_kept, lambda: one.bring(Side.IMPORTED)):
        with pytest.raises(InternalError, match=r"'exchange.json' of an exchange cannot be read: it (is no|has more)"):
            act()

    assert _content(drive) == OLD


@pytest.mark.parametrize("is_interrupted", [False, True])
def test_a_drive_of_which_a_part_is_a_link_is_exchanged_once_it_is_there_itself(
    is_interrupted: bool, drive: Path, tmp_path: Path, steps: Steps
) -> None:
    one = Exchange(drive, KEY)
    if is_interrupted:
        steps.restart(crash_at=3)
        with pytest.raises(CrashError):
            one.bring(Side.IMPORTED)
    before = _content(drive)
    (drive / ".minio.sys").rename(tmp_path / "elsewhere")
    (drive / ".minio.sys").symlink_to(tmp_path / "elsewhere")

    act = one.recover if is_interrupted else lambda: one.bring(Side.IMPORTED)
    with pytest.raises(ToolFailedError, match="Not a directory"):
        act()

    (drive / ".minio.sys").unlink()
    (tmp_path / "elsewhere").rename(drive / ".minio.sys")
    assert _content(drive) == before
    act()
    assert _content(drive) == NEW


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to another user")
@pytest.mark.parametrize("what", ["another user's", "a link"])
def test_what_a_server_puts_in_the_place_of_what_is_kept_is_not_used(what: str, drive: Path, tmp_path: Path) -> None:
    reserved = drive / ".mathison-data"
    reserved.rename(drive / ".aside")
    if what == "a link":
        shutil.copytree(drive / ".aside", tmp_path / "elsewhere")
        reserved.symlink_to(tmp_path / "elsewhere")
    else:
        shutil.copytree(drive / ".aside", reserved)
        os.chown(reserved, 1000, 1000)

    one = Exchange(drive, KEY)
    for act in (one.recover, one.side, one.is_unfinished, one.note_kept, lambda: one.bring(Side.IMPORTED)):
        with pytest.raises(ToolFailedError, match=r"'\.mathison-data': (it belongs to uid 1000|Not a directory)"):
            act()

    assert _content(drive) == {**OLD, **{f".aside/{KEY}/new/{name}": "new" for name in NEW if name != ".minio.sys/tmp"}}


_OUTSIDE = {"config": "another app's", "buckets/both1": "another app's", "both1": "another app's"}


@pytest.mark.parametrize(
    ("only", "way"), [("", ".minio.sys"), ("both1", ".minio.sys"), ("both1", ".minio.sys/buckets")]
)
def test_a_link_that_a_server_puts_in_the_way_while_buckets_are_away_is_not_followed(
    only: str, way: str, drive: Path, tmp_path: Path
) -> None:
    outside, elsewhere = tmp_path / "outside", tmp_path / "elsewhere"
    for name, text in _OUTSIDE.items():
        _mark(outside / name, text)
    before = _content(drive)

    def put_a_link() -> bool:
        if not elsewhere.exists():
            (drive / way).rename(elsewhere)
            (drive / way).symlink_to(outside)
        return True

    with pytest.raises(ToolFailedError, match=r"Not a directory; it is as it was"):
        Exchange(drive, KEY, only=only).bring(Side.IMPORTED, until_quiet=put_a_link)

    assert _content(outside) == _OUTSIDE
    (drive / way).unlink()
    elsewhere.rename(drive / way)
    assert _content(drive) == before


def test_a_link_in_the_way_of_what_a_bucket_alone_left_behind_is_not_followed(drive: Path, tmp_path: Path) -> None:
    _mark(tmp_path / "only-new", "another app's")
    one = Exchange(drive, KEY, only="only-new")
    (drive / f".mathison-data/{KEY}/new/.minio.sys/buckets/only-new").mkdir()
    one.bring(Side.IMPORTED)
    one.bring(Side.PREVIOUS)
    (drive / ".minio.sys" / "buckets").rename(tmp_path / "elsewhere")
    (drive / ".minio.sys" / "buckets").symlink_to(tmp_path)

    one.sweep()

    assert (tmp_path / "only-new" / "of").read_text() == "another app's"
