"""What an import of a volume keeps: missed when some of it is gone, exchanged although the disk is full, and not where
something cannot be moved."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.engines.swapping import Side, Swap
from agent.recipes.base import Recovered
from agent.recipes.volume import VolumeRecipe
from agent.settings import AppSettings
from common.errors import AppUnavailableError, NoSpaceError, NothingToUndoError, ToolFailedError, TransferNotFoundError
from tests.contract.agents import Agent, Launch
from tests.fakes.imports import MemoryRecord, NotedProgress
from tests.fixtures.archives import entry, tar_of
from tests.fixtures.small_disks import NEEDS_A_SMALL_DISK, fill, tmpfs
from tests.integration.agent.recipes.conftest import Volume


def make_deep(volume: Path) -> None:
    (volume / "d" / "deep" / "empty").mkdir(parents=True)
    (volume / "d" / "file").write_text("old")
    (volume / "d" / "link").symlink_to("file")


def remove_kept(volume: Volume, record: MemoryRecord, name: str) -> None:
    path = volume.directory / ".mathison-data" / record.key / name
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


@pytest.mark.parametrize("removed", ["d/file", "d/link", "d/deep/empty"])
async def test_an_undo_misses_what_is_gone_from_below(removed: str, volume: Volume) -> None:
    make_deep(volume.directory)
    record = await volume.import_(tar_of(entry("data", b"new")))
    remove_kept(volume, record, f"old/{removed}")
    calls = list(volume.app.calls)

    with pytest.raises(NothingToUndoError, match="or some of it") as caught:
        await volume.recipe.undo(record, NotedProgress())

    assert f"lie in {volume.directory}/.mathison-data/{record.key}/old until" in caught.value.next_step
    assert (volume.directory / "data").read_text() == "new"
    assert volume.app.calls == calls


@pytest.mark.parametrize("removed_first", [False, True])
async def test_an_undo_after_a_crash_misses_it_as_well(removed_first: bool, volume: Volume) -> None:
    make_deep(volume.directory)
    (volume.directory / "more").touch()
    record = MemoryRecord()
    await volume.stage(tar_of(entry("data", b"new")), record)
    record.save(app_is_stopped=True)
    Swap(volume.directory, record.key).bring(Side.IMPORTED)
    if removed_first:
        remove_kept(volume, record, "old/more")

    assert await volume.recipe.recover(record) is Recovered.IMPORTED
    if not removed_first:
        remove_kept(volume, record, "old/d/file")
    assert await volume.recipe.recover(record) is Recovered.IMPORTED

    with pytest.raises(NothingToUndoError, match="or some of it"):
        await volume.recipe.undo(record, NotedProgress())


async def test_what_was_staged_is_not_swapped_in_without_what_is_gone_from_below(volume: Volume) -> None:
    record = MemoryRecord()
    await volume.stage(tar_of(entry("d/data", b"new"), entry("d/more", b"new")), record)
    remove_kept(volume, record, "new/d/more")

    with pytest.raises(TransferNotFoundError, match="gone"):
        await volume.recipe.restore(record, NotedProgress())

    assert volume.app.calls == []


async def test_an_undo_takes_what_the_app_has_made_since_and_what_cannot_be_counted_in_time(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_deep(volume.directory)
    monkeypatch.setattr("agent.engines.noting._COUNT_SECONDS", -1.0)
    record = await volume.import_(tar_of(entry("data", b"new")))
    (volume.directory / "made since").touch()
    remove_kept(volume, record, "old/d/file")

    await volume.recipe.undo(record, NotedProgress())

    assert sorted(path.name for path in volume.directory.iterdir()) == ["d"]


@NEEDS_A_SMALL_DISK
@pytest.mark.parametrize("of_files", [False, True])
async def test_a_full_volume_is_exchanged(of_files: bool, tmp_path: Path) -> None:
    with tmpfs(tmp_path / "small", "-o", "size=2m,nr_inodes=200"):
        volume = Volume(tmp_path / "small" / "volume")
        (volume.directory / "data").write_text("old")
        record = MemoryRecord()
        await volume.stage(tar_of(entry("data", b"new"), entry("more", b"new")), record)
        fill(volume.directory, of_files=of_files)

        await volume.recipe.restore(record, NotedProgress())
        assert (volume.directory / "data").read_text() == "new"
        fill(volume.directory, of_files=of_files)
        await volume.recipe.undo(record, NotedProgress())

        assert (volume.directory / "data").read_text() == "old"
        assert not (volume.directory / "more").exists()
        assert not volume.has_leftovers


async def test_what_another_agent_noted_of_an_exchange_is_told_when_it_is_to_be_dropped_and_left_to_that_agent(
    tmp_path: Path,
) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "data").write_text("old")
    does_nothing = AppSettings(stop=("true",), start=("true",))
    agent = Agent(Launch(VolumeRecipe, {"directory": str(volume)}, does_nothing, tmp_path / "state"))
    await agent.start()
    await agent.import_("t-1", tar_of(entry("data", b"new")))
    [note] = volume.glob(".mathison-data/*/swap.json")
    note.write_text(note.read_text().replace('"version": 1', '"version": 2'))

    with pytest.raises(AppUnavailableError, match=r"t-1 keeps cannot be dropped.* version 2, not 1\. N") as told:
        await agent.transfers.discard("t-1")
    await agent.transfers.housekeeping.tidy()

    [line] = (tmp_path / "state" / "journal").iterdir()
    assert told.value.text.endswith("Nothing was changed. All that it keeps stays.")
    assert told.value.next_step.endswith(f"see to the app's data yourself, then move {line} away.")
    described = (await agent.transfers.overview()).description
    assert (described.can_export.is_possible, described.can_import.is_possible) == (True, False)
    assert told.value.next_step in described.can_import.obstacle
    note.write_text(note.read_text().replace('"version": 2', '"version": 1'))
    await agent.restart()
    await agent.undo("t-1")
    assert (volume / "data").read_text() == "old"
    assert list(volume.iterdir()) == [volume / "data"]
    await agent.close()


@NEEDS_A_SMALL_DISK
async def test_an_import_of_an_older_agent_on_a_full_volume_stays_as_it_was(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "small", "-o", "size=2m,nr_inodes=200"):
        volume = Volume(tmp_path / "small" / "volume")
        (volume.directory / "data").write_text("old")
        record = await volume.import_(tar_of(entry("data", b"new")))
        remove_kept(volume, record, "swap.json.new")
        fill(volume.directory, of_files=True)

        with pytest.raises(NoSpaceError, match=r"has no room.*; the data is as it was") as caught:
            await volume.recipe.undo(record, NotedProgress())

        assert "Free a little of it" in caught.value.next_step
        assert (volume.directory / "data").read_text() == "new"
        assert volume.app.is_running
        (volume.directory / "fill 0").unlink()
        await volume.recipe.undo(record, NotedProgress())
        assert (volume.directory / "data").read_text() == "old"


@contextmanager
def immutable(path: Path) -> Iterator[None]:
    subprocess.run(["chattr", "+i", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", path], check=True)


NEEDS_CHATTR = pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a file immutable")


@NEEDS_CHATTR
async def test_what_cannot_be_moved_is_told_before_anything_is_unpacked(volume: Volume) -> None:
    (volume.directory / "z").write_text("old")

    with immutable(volume.directory / "z"):
        with pytest.raises(AppUnavailableError, match=r"'z' in .* cannot be moved: it may not be changed by anybody"):
            await volume.stage(tar_of(entry("data", b"new")), MemoryRecord())
        assert "'z'" in (await volume.recipe.describe()).can_import.obstacle

    assert not volume.has_leftovers
    assert (await volume.recipe.describe()).can_import.is_possible


@NEEDS_CHATTR
async def test_what_cannot_be_moved_since_is_told_with_the_data_as_it_was(volume: Volume) -> None:
    (volume.directory / "a").write_text("old")
    (volume.directory / "z").write_text("old")
    record = MemoryRecord()
    await volume.stage(tar_of(entry("data", b"new")), record)

    with immutable(volume.directory / "z"):
        with pytest.raises(ToolFailedError, match=r"is as it was\. 'z' in .* cannot be moved: it may not be changed"):
            await volume.recipe.restore(record, NotedProgress())
        assert sorted(path.name for path in volume.directory.glob("[a-z]*")) == ["a", "z"]
        assert volume.app.is_running

    await volume.recipe.restore(record, NotedProgress())
    assert [path.name for path in volume.directory.glob("[a-z]*")] == ["data"]
