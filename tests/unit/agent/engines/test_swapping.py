"""A swap ends entirely on one side, whatever interrupts it and whatever interrupts its recovery."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.engines import swapping
from agent.engines.filesystem import rename_without_replacing
from agent.engines.swapping import Side, Swap
from agent.engines.tree import StagingArea
from agent.versions import UnknownVersionError
from common.errors import AppBusyError, InternalError, ToolFailedError

KEY = "0123456789ab"


class CrashError(BaseException):
    """The process is gone."""


class Steps:
    """Counts what changes the disk, and ends the process, or fails, at one of them."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.done = 0
        self.crash_at = 0
        self.fail_at: set[int] = set()
        for name in ("_write", "rename_without_replacing"):
            patch.setattr(swapping, name, self._counted(getattr(swapping, name)))
        # A made-up crash loses nothing that is not durable, so hundreds of them need not wait for the disk.
        patch.setattr(swapping, "sync_filesystem", lambda descriptor: None)
        patch.setattr(os, "fsync", lambda descriptor: None)

    def restart(self, *, crash_at: int = 0) -> None:
        self.done, self.crash_at = 0, crash_at

    def _counted(self, step: Callable[..., object]) -> Callable[..., object]:
        def counted(*arguments: object, **options: object) -> object:
            self.done += 1
            if self.done == self.crash_at:
                raise CrashError
            if self.done in self.fail_at:
                raise OSError(5, "Input/output error", "disk")
            return step(*arguments, **options)

        return counted


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    return make_volume(tmp_path / "volume")


def make_volume(volume: Path) -> Path:
    """Previous data, and imported data staged beside it."""
    volume.mkdir()
    (volume / "lost+found").mkdir()
    area = StagingArea(volume, KEY)
    area.create()
    for root, names, content in ((volume, "abc", "old"), (area.new, "abd", "new")):
        for name in names:
            (root / name).mkdir()
            (root / name / "f").write_text(content)
        (root / f"only {content}").write_text(content)
    return volume


def content_of(volume: Path) -> dict[str, str]:
    files = (path for path in volume.rglob("*") if path.is_file() and ".mathison-data" not in path.parts)
    return {str(path.relative_to(volume)): path.read_text() for path in files}


OLD = {**{f"{name}/f": "old" for name in "abc"}, "only old": "old"}
NEW = {**{f"{name}/f": "new" for name in "abd"}, "only new": "new"}
STEPS = 11
"""Of one swap: three phases written, four entries moved out and four in."""


def test_sides_change_places_as_often_as_asked(volume: Path) -> None:
    swap = Swap(volume, KEY)
    assert content_of(volume) == OLD

    for _ in range(2):
        swap.bring(Side.IMPORTED)
        assert content_of(volume) == NEW
        swap.bring(Side.IMPORTED)
        assert content_of(volume) == NEW
        swap.bring(Side.PREVIOUS)
        assert content_of(volume) == OLD

    assert (volume / "lost+found").is_dir()


def test_what_the_app_made_since_goes_with_its_side(volume: Path) -> None:
    swap = Swap(volume, KEY)
    swap.bring(Side.IMPORTED)
    (volume / "made later").write_text("new")

    swap.bring(Side.PREVIOUS)

    assert content_of(volume) == OLD
    swap.bring(Side.IMPORTED)
    assert content_of(volume) == {**NEW, "made later": "new"}


@pytest.mark.parametrize("target", Side)
def test_a_crash_anywhere_and_another_in_the_recovery_leave_one_side(
    target: Side, tmp_path: Path, steps: Steps
) -> None:
    expected = {Side.PREVIOUS: OLD, Side.IMPORTED: NEW}
    ended = {Side.PREVIOUS: 0, Side.IMPORTED: 0}
    for crash_at in range(1, 40):
        was_complete = False
        for crash_again_at in range(40):
            steps.restart()
            volume = make_volume(tmp_path / "volume")
            Swap(volume, KEY).note_staged()
            if target is Side.PREVIOUS:
                Swap(volume, KEY).bring(Side.IMPORTED)
            steps.restart(crash_at=crash_at)
            try:
                Swap(volume, KEY).bring(target)
                was_complete = True
            except CrashError:
                pass
            steps.restart(crash_at=crash_again_at)
            recovered_at_once = True
            try:
                Swap(volume, KEY).recover()
            except CrashError:
                recovered_at_once = False
            steps.restart()
            side = Swap(volume, KEY).recover()
            assert side is not None

            assert content_of(volume) == expected[side], (crash_at, crash_again_at)
            assert not Swap(volume, KEY).is_unfinished()
            Swap(volume, KEY).bring(side.other)
            assert content_of(volume) == expected[side.other], (crash_at, crash_again_at)
            ended[side] += 1
            shutil.rmtree(volume)
            if crash_again_at and recovered_at_once:
                break
        if was_complete:
            break
    else:
        raise AssertionError("there are more steps than were tried")
    assert min(ended.values()) > 3


def test_an_error_anywhere_leaves_the_data_as_it_was(tmp_path: Path, steps: Steps) -> None:
    for fail_at in range(1, STEPS + 1):
        steps.restart()
        steps.fail_at = set()
        volume = make_volume(tmp_path / "volume")
        steps.fail_at = {fail_at}

        with pytest.raises(ToolFailedError, match="the data is as it was"):
            Swap(volume, KEY).bring(Side.IMPORTED)

        assert content_of(volume) == OLD
        assert not Swap(volume, KEY).is_unfinished()
        steps.fail_at = set()
        Swap(volume, KEY).bring(Side.IMPORTED)
        assert content_of(volume) == NEW
        shutil.rmtree(volume)


def test_two_errors_are_mended_by_the_next_start(tmp_path: Path, steps: Steps) -> None:
    for fail_at in range(2, STEPS + 1):
        steps.restart()
        steps.fail_at = set()
        volume = make_volume(tmp_path / "volume")
        steps.fail_at = set(range(fail_at, 60))

        with pytest.raises(ToolFailedError, match="could not be"):
            Swap(volume, KEY).bring(Side.IMPORTED)

        steps.fail_at = set()
        side = Swap(volume, KEY).recover()
        assert content_of(volume) == (OLD if side is Side.PREVIOUS else NEW)
        shutil.rmtree(volume)


def test_an_app_that_writes_meanwhile_is_noticed(volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = rename_without_replacing

    def rename_and_interfere(name: str, *, source: int, target: int) -> None:
        rename(name, source=source, target=target)
        if name == "only old" and not (volume / "a").exists():
            (volume / "a").mkdir()
            (volume / "a" / "log").write_text("stray")

    monkeypatch.setattr(swapping, "rename_without_replacing", rename_and_interfere)

    with pytest.raises(AppBusyError, match="'a'"):
        Swap(volume, KEY).bring(Side.IMPORTED)

    monkeypatch.setattr(swapping, "rename_without_replacing", rename)
    assert content_of(volume) == OLD
    assert [path.read_text() for path in (volume / ".mathison-data" / KEY / "strays").rglob("log")] == ["stray"]
    Swap(volume, KEY).bring(Side.IMPORTED)
    assert content_of(volume) == NEW


def test_a_staging_area_that_is_gone_is_no_reason_to_touch_anything(volume: Path) -> None:
    StagingArea(volume, KEY).remove()

    with pytest.raises(InternalError):
        Swap(volume, KEY).bring(Side.IMPORTED)

    assert content_of(volume) == OLD
    assert not Swap(volume, KEY).is_unfinished()


def test_a_staging_area_behind_a_link_is_not_used(volume: Path, tmp_path: Path) -> None:
    (volume / ".mathison-data").rename(tmp_path / "elsewhere")
    (volume / ".mathison-data").symlink_to(tmp_path / "elsewhere")

    swap, area = Swap(volume, KEY), StagingArea(volume, KEY)
    for act in (swap.kept, swap.is_unfinished, swap.recover, lambda: swap.bring(Side.IMPORTED), area.remove):
        with pytest.raises(ToolFailedError, match=r"'\.mathison-data': Not a directory"):
            act()

    assert (tmp_path / "elsewhere" / KEY / "new" / "only new").exists()
    assert content_of(volume) == OLD


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to another user")
@pytest.mark.parametrize("foreign", [".mathison-data", f".mathison-data/{KEY}"])
def test_a_staging_area_of_another_user_is_not_used(foreign: str, volume: Path) -> None:
    """As an app's that put its own in the place of what was kept."""
    (volume / foreign).rename(volume / "aside")
    for side in Side:
        (volume / ".mathison-data" / KEY / side.value / "planted").mkdir(parents=True)
    for path in (volume / foreign, *(volume / foreign).rglob("*")):
        os.chown(path, 1000, 1000)

    swap, area = Swap(volume, KEY), StagingArea(volume, KEY)
    for act in (swap.kept, swap.is_unfinished, swap.recover, lambda: swap.bring(Side.IMPORTED), area.open_new):
        with pytest.raises(ToolFailedError, match="belongs to uid 1000, not to the agent"):
            act()
    if foreign == ".mathison-data":
        for make in (area.remove, StagingArea(volume, "ba9876543210").create):
            with pytest.raises(ToolFailedError, match="belongs to uid 1000, not to the agent"):
                make()

    assert sorted(os.listdir(volume / ".mathison-data")) == [KEY]
    shutil.rmtree(volume / foreign)
    (volume / "aside").rename(volume / foreign)
    assert swap.recover() is None
    swap.bring(Side.IMPORTED)
    assert content_of(volume) == NEW


@pytest.mark.parametrize("what", ["a fifo", "without an end"])
def test_a_journal_that_is_no_file_or_far_too_large_is_not_waited_for(what: str, volume: Path) -> None:
    journal = volume / ".mathison-data" / KEY / "swap.json"
    if what == "a fifo":
        os.mkfifo(journal)
    else:
        with journal.open("wb") as file:
            file.truncate(100 << 30)

    swap = Swap(volume, KEY)
    for act in (swap.kept, swap.is_unfinished, swap.recover, swap.note_kept, lambda: swap.bring(Side.IMPORTED)):
        with pytest.raises(InternalError, match=r"'swap.json' of a swap cannot be read: it (is no|has more)"):
            act()

    assert content_of(volume) == OLD


def test_a_directory_nobody_may_write_to_is_exchanged_as_well(volume: Path) -> None:
    (volume / "a").chmod(0o555)
    (volume / ".mathison-data" / KEY / "new" / "b").chmod(0o500)

    Swap(volume, KEY).bring(Side.IMPORTED)

    assert stat.S_IMODE((volume / "b").stat().st_mode) == 0o500
    assert stat.S_IMODE((volume / ".mathison-data" / KEY / "old" / "a").stat().st_mode) == 0o555
    StagingArea(volume, KEY).remove()
    assert sorted(os.listdir(volume)) == ["a", "b", "d", "lost+found", "only new"]


def test_a_journal_that_is_none_stops_everything(volume: Path) -> None:
    (volume / ".mathison-data" / KEY / "swap.json").write_text("{}")

    with pytest.raises(InternalError):
        Swap(volume, KEY).recover()

    assert content_of(volume) == OLD


def test_a_journal_of_another_version_is_left_to_the_agent_that_wrote_it(volume: Path) -> None:
    journal = volume / ".mathison-data" / KEY / "swap.json"
    Swap(volume, KEY).bring(Side.IMPORTED)
    written = journal.read_text()
    journal.write_text(written.replace('"version": 1', '"version": 2'))

    swap = Swap(volume, KEY)
    for act in (swap.recover, swap.is_unfinished, lambda: swap.bring(Side.PREVIOUS)):
        with pytest.raises(UnknownVersionError, match=r"of version 2, not 1\. Nothing was changed"):
            act()

    # The first ones had none.
    journal.write_text(written.replace('"version": 1, ', ""))
    assert swap.recover() is Side.IMPORTED
