"""A volume out and in: the same afterwards, whatever is in it, and unharmed by whatever goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import lzma
import os
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.engines.swapping import Side, Swap
from agent.recipes import in_place
from agent.recipes.base import ExportOptions, ItemChanges, Limits, Recovered, Step, Surroundings, Upload
from agent.recipes.volume import VolumeRecipe
from agent.versions import UnknownVersionError
from common.codecs import UnpackedFile
from common.errors import (
    AppBusyError,
    AppMustStopError,
    ArchiveDamagedError,
    ArchiveRefusedError,
    ArchiveTruncatedError,
    ArchiveWrongKindError,
    InternalError,
    InvalidRequestError,
    NoSpaceError,
    NothingToUndoError,
    ServiceError,
    ToolFailedError,
    TransferNotFoundError,
    UploadIncompleteError,
)
from common.headers import ArchiveHeader
from common.seals import FingerprintFinder
from tests.fakes.imports import FullRecord, MemoryRecord, NotedProgress, chunked
from tests.fixtures.archives import DIRECTORY, SYMLINK, described, entry, make_nasty, tar_of, zip_of_raw_names
from tests.fixtures.attacks import ATTACKS
from tests.fixtures.children import agent_children
from tests.fixtures.hot_journals import make_unfinished
from tests.fixtures.ledgers import TOTAL, Writer, make_ledger, state_of
from tests.fixtures.odd_tables import add_odd_tables, add_table_of_unknown_module
from tests.fixtures.small_disks import tmpfs
from tests.fixtures.waiting import until
from tests.integration.agent.recipes.conftest import NotedApp, Volume

FORMATS = [found.name for found in VolumeRecipe.export_formats]
IS_ROOT = os.geteuid() == 0


def not_ours(path: str) -> bool:
    return not path.startswith(".mathison-data")


def wipe(directory: Path) -> None:
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
            shutil.rmtree(path)
        else:
            path.unlink()


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def access_list(*, user: int) -> bytes:
    """A POSIX access list as the kernel stores it, with an entry for a user: tag, permissions, id."""
    entries = ((0x01, 7, -1), (0x02, 5, user), (0x04, 5, -1), (0x10, 5, -1), (0x20, 0, -1))
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)


def unpacked(content: bytes) -> bytes:
    opened = UnpackedFile(io.BytesIO(content))
    return b"".join(iter(lambda: opened.read(1 << 20), b""))


@pytest.mark.parametrize("format_name", FORMATS)
async def test_a_nasty_volume_is_the_same_after_export_wipe_and_import(format_name: str, volume: Volume) -> None:
    make_nasty(volume.directory)
    # Its setuid does not come back, on purpose: see test_extracting.py.
    (volume.directory / "program").chmod(0o751)
    before = described(volume.directory)
    exported = await volume.export(format_name)
    wipe(volume.directory)

    await volume.import_(exported.content, outside_links="keep")

    assert described(volume.directory, is_wanted=not_ours) == before
    assert (volume.directory / "sparse").stat().st_blocks * 512 < 1 << 20
    assert (volume.directory / "all a hole").stat().st_blocks == 0
    assert exported.warnings == []


async def test_an_archive_says_what_it_is_and_what_is_in_it(volume: Volume) -> None:
    make_nasty(volume.directory)
    make_ledger(volume.directory / "app.db")

    exported = await volume.export("tar.zst")

    header = exported.header
    assert (header.recipe, header.format, header.format_version) == ("volume", "tar.zst", 1)
    assert (header.app_id, header.made_by, header.engine) == ("shop.files", "mathison-data test", "files")
    assert header.details["owners"] == f"{os.getuid()}:{os.getgid()}"
    assert exported.counts["databases"] == 1
    assert exported.counts["hard_links"] == 3
    archived = sum(exported.counts[name] for name in ("files", "directories", "symlinks", "hard_links"))
    assert header.counts["entries"] == archived
    assert exported.progress.steps[0] is Step.PREPARING
    assert exported.progress.read_bytes == exported.counts["bytes"]
    assert exported.progress.expected_bytes > 0


async def test_gnu_tar_lists_and_unpacks_an_export(volume: Volume, tmp_path: Path) -> None:
    make_nasty(volume.directory)
    (volume.directory / "old").unlink()
    before = described(volume.directory)
    content = unpacked((await volume.export("tar.gz")).content)
    target = tmp_path / "target"
    target.mkdir()

    listed = subprocess.run(["tar", "-tv"], input=content, capture_output=True, check=True)
    options = ["-xp", "--xattrs", "--xattrs-include=user.*", "--no-wildcards-match-slash", "-C", str(target)]
    subprocess.run(["tar", *options], input=content, capture_output=True, check=True)

    lines = listed.stdout.decode(errors="replace").splitlines()
    assert lines[0].endswith(".mathison-data/archive.json")
    assert lines[-1].endswith(".mathison-data/digest.json")
    shutil.rmtree(target / ".mathison-data")
    assert described(target) == before


@pytest.mark.parametrize(
    "options",
    [
        ["--format=v7"],
        ["--format=ustar"],
        ["--format=oldgnu"],
        ["--format=gnu", "--sparse"],
        ["--format=posix"],
        ["--format=posix", "--sparse", "--sparse-version=0.0"],
        ["--format=posix", "--sparse", "--sparse-version=0.1"],
        ["--format=posix", "--sparse", "--sparse-version=1.0", "--xattrs"],
    ],
    ids=" ".join,
)
async def test_what_gnu_tar_makes_is_imported(options: list[str], volume: Volume, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "d").mkdir(mode=0o750)
    (source / "d" / "file").write_bytes(os.urandom(10_000))
    os.link(source / "d" / "file", source / "d" / "second name")
    (source / "d" / "link").symlink_to("file")
    (source / "empty").touch()
    with (source / "sparse").open("wb") as file:
        for offset in (100_000, 3_000_000, 9_000_000, 12_000_000, 20_000_000, 30_000_000):
            file.seek(offset)
            file.write(b"data" * 2000)
        file.truncate(40_000_000)
    if "v7" not in options[0] and "ustar" not in options[0]:
        (source / ("n" * 200)).write_text("long")
        (source / "größe").write_text("unicode")
    if "--xattrs" in options:
        os.setxattr(source / "d" / "file", "user.note", b"binary\0\n=")
    for path in [*source.rglob("*"), source]:
        os.utime(path, (1_600_000_000, 1_600_000_000), follow_symlinks=False)
    archive = subprocess.run(["tar", *options, "-C", source, "-cf", "-", "."], capture_output=True, check=True).stdout

    await volume.import_(archive)

    assert described(volume.directory, is_wanted=not_ours) == described(source)
    if "--sparse" in options:
        assert (volume.directory / "sparse").stat().st_blocks * 512 < 1 << 20


async def test_archives_of_other_compressions_are_imported(volume: Volume) -> None:
    tar = tar_of(entry("a", b"content", uid=os.getuid(), gid=os.getgid()))
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", b"content")

    for content in (tar, lzma.compress(tar), zipped.getvalue()):
        await volume.import_(content)

        assert (volume.directory / "a").read_bytes() == b"content"
        wipe(volume.directory)


async def test_a_preview_of_the_same_data_counts_the_same_whatever_its_names_and_holes(volume: Volume) -> None:
    (volume.directory / "a").write_bytes(b"content")
    (volume.directory / "b").hardlink_to(volume.directory / "a")
    (volume.directory / "zeros").write_bytes(bytes(3 << 20))
    (volume.directory / "sparse").touch()
    os.truncate(volume.directory / "sparse", 5 << 20)

    preview = await volume.stage((await volume.export()).content, MemoryRecord())

    assert preview.counts_now == {"files": 4, "bytes": 2 * len(b"content") + (8 << 20), "databases": 0}
    assert preview.counts_after == preview.counts_now
    assert preview.changes[0] == "4 files (8,388,622 bytes) instead of 4 (8,388,622)."


@pytest.mark.parametrize("format", ["tar", "tar.gz", "tar.zst"])
async def test_a_zip_of_an_export_is_taken_as_the_export(format: str, volume: Volume) -> None:
    (volume.directory / "a").write_bytes(b"content")
    (volume.directory / "a").chmod(0o640)
    before = described(volume.directory)
    exported = await volume.export(format)
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("backups/", b"")
        archive.writestr(f"backups/x.{format}", exported.content)
    wipe(volume.directory)

    preview = await volume.stage(zipped.getvalue(), record := MemoryRecord())
    await volume.recipe.restore(record, NotedProgress())

    assert described(volume.directory, is_wanted=not_ours) == before
    assert preview.header == exported.header
    assert preview.warnings == (f"The zip holds one file, the tar 'backups/x.{format}': what is in that was taken.",)


async def test_a_zip_whose_only_file_is_no_tar_is_a_volume_with_that_file(volume: Volume) -> None:
    for content in (b"", b"text", gzip.compress(b"text"), gzip.compress(b"text")[:-9]):
        zipped = io.BytesIO()
        with zipfile.ZipFile(zipped, "w") as archive:
            archive.writestr("a", content)

        await volume.import_(zipped.getvalue())

        assert (volume.directory / "a").read_bytes() == content


async def test_a_busy_database_is_consistent_in_an_export_and_its_side_files_are_not(volume: Volume) -> None:
    make_ledger(volume.directory / "app.db", rows=500)
    (volume.directory / "notes").write_text("beside it")
    with Writer(volume.directory / "app.db") as writer:
        exported = await volume.export("tar.zst")
    assert writer.report["errors"] == {}
    wipe(volume.directory)

    await volume.import_(exported.content)

    assert sorted(os.listdir(volume.directory)) == [".mathison-data", "app.db", "notes"]
    assert state_of(volume.directory / "app.db") == (TOTAL, "old")
    assert exported.warnings == []


async def test_an_empty_volume_goes_out_and_in(volume: Volume) -> None:
    exported = await volume.export("tar")
    (volume.directory / "new").touch()

    await volume.import_(exported.content)

    assert os.listdir(volume.directory) == [".mathison-data"]


async def test_directories_without_a_file_are_taken_with_a_warning_unless_they_are_an_export(volume: Volume) -> None:
    (volume.directory / "empty").mkdir()
    exported = await volume.export("tar")

    foreign = await volume.stage(tar_of(entry("empty", type=DIRECTORY)), MemoryRecord(key="foreign"))
    with_a_file = await volume.stage(tar_of(entry("d", type=DIRECTORY), entry("d/a", b"x")), MemoryRecord(key="file"))
    ours = await volume.stage(exported.content, MemoryRecord(key="ours"))

    said = "The archive holds directories but no files; an import leaves the app without data."
    assert said in foreign.warnings
    assert said not in (*with_a_file.warnings, *ours.warnings)


async def test_excluded_paths_are_not_in_an_export_and_the_header_says_so(tmp_path: Path) -> None:
    volume = Volume(tmp_path / "volume", settings={"exclude": ["cache", "logs/*.log"]})
    for path in ("cache/x", "logs/a.log", "logs/keep"):
        (volume.directory / path).parent.mkdir(exist_ok=True)
        (volume.directory / path).touch()

    exported = await volume.export("tar")

    assert exported.counts["files"] == 1
    assert exported.header.details["excluded"] == "cache, logs/*.log"


async def test_staging_changes_nothing_and_tells_what_would_change(volume: Volume) -> None:
    (volume.directory / "kept").write_text("same")
    os.utime(volume.directory / "kept", (5, 5))
    (volume.directory / "gone").write_text("old")
    (volume.directory / "changed").write_text("old")
    make_ledger(volume.directory / "app.db", mode="delete")
    before = described(volume.directory)
    mine = {"uid": os.getuid(), "gid": os.getgid()}
    archive = tar_of(
        entry("kept", b"same", mtime=5, **mine), entry("changed", b"new!", **mine), entry("b", b"", **mine)
    )
    record = MemoryRecord()

    preview = await volume.stage(archive, record)

    assert described(volume.directory, is_wanted=not_ours) == before
    assert volume.app.calls == []
    assert preview.counts_now["databases"] == 1
    assert (preview.counts_now["files"], preview.counts_after["files"]) == (4, 3)
    assert preview.changes[1] == (
        "At the top of the volume: 1 new ('b'), 2 gone ('app.db', 'gone'), 1 changed ('changed'), 1 as they are."
    )
    assert preview.items == {
        "files": ItemChanges(added=1, removed=1, changed=1, same=1),
        "databases": ItemChanges(removed=1),
    }
    assert preview.room_bytes == len(b"same" + b"new!")
    assert preview.swap_seconds > 0
    await volume.recipe.discard(record)
    assert not volume.has_leftovers


async def test_a_preview_does_not_count_changes_among_more_names_than_it_holds(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.archives.surveying._TOPS_COUNTED", 3)

    archive = tar_of(*(entry(f"file{number}", b"x") for number in range(4)))
    record = MemoryRecord()

    preview = await volume.stage(archive, record)
    await volume.recipe.discard(record)

    assert preview.changes[0].startswith("4 files")
    assert preview.changes[1] == "At the top of the volume are too many names to compare them one by one."


async def test_the_app_is_down_during_the_swap_and_the_previous_data_can_come_back(volume: Volume) -> None:
    (volume.directory / "data").write_text("old")
    before = described(volume.directory)

    record = await volume.import_(tar_of(entry("data", b"new"), entry("more", b"1")))

    assert (volume.directory / "data").read_text() == "new"
    assert volume.app.calls == ["stop", "start"]
    (volume.directory / "written since").touch()
    progress = NotedProgress()
    await volume.recipe.undo(record, progress)
    assert described(volume.directory) == before
    assert volume.app.calls == ["stop", "start"] * 2
    assert progress.note == "removing the imported data; the app runs"
    assert not volume.has_leftovers


async def test_confirming_drops_the_previous_data(volume: Volume) -> None:
    (volume.directory / "data").write_text("old")
    record = await volume.import_(tar_of(entry("data", b"new")))

    await volume.recipe.discard(record)
    await volume.recipe.discard(record)

    assert os.listdir(volume.directory) == ["data"]
    assert (volume.directory / "data").read_text() == "new"


async def test_two_imports_can_be_kept_at_a_time(volume: Volume) -> None:
    (volume.directory / "data").write_text("0")
    first = await volume.import_(tar_of(entry("data", b"1")))

    second = await volume.import_(tar_of(entry("data", b"2")))

    await volume.recipe.discard(first)
    assert (volume.directory / "data").read_text() == "2"
    await volume.recipe.undo(second, NotedProgress())
    assert (volume.directory / "data").read_text() == "1"
    assert not volume.has_leftovers


async def test_an_app_that_does_not_start_gets_its_previous_data_back(volume: Volume) -> None:
    (volume.directory / "data").write_text("old")
    volume.app.failures["start"] = [ToolFailedError("port in use")]
    record = MemoryRecord()
    await volume.stage(tar_of(entry("data", b"new")), record)

    with pytest.raises(ToolFailedError, match="other is back in place and it was started again: port in use"):
        await volume.recipe.restore(record, NotedProgress())

    assert (volume.directory / "data").read_text() == "old"
    assert volume.app.calls == ["stop", "start", "stop", "start"]
    assert volume.app.is_running
    await volume.recipe.restore(record, NotedProgress())
    assert (volume.directory / "data").read_text() == "new"


async def test_an_app_that_does_not_stop_keeps_running_on_its_data(volume: Volume) -> None:
    (volume.directory / "data").write_text("old")
    volume.app.failures["stop"] = [AppBusyError("it hangs")]
    record = MemoryRecord()
    await volume.stage(tar_of(entry("data", b"new")), record)

    with pytest.raises(AppBusyError):
        await volume.recipe.restore(record, NotedProgress())

    assert (volume.directory / "data").read_text() == "old"
    assert volume.app.calls == ["stop", "start"]


async def test_an_app_that_is_down_after_a_failed_attempt_is_told(volume: Volume) -> None:
    (volume.directory / "data").write_text("old")
    volume.app.failures["stop"] = [AppBusyError("it hangs.")]
    volume.app.failures["start"] = [ToolFailedError("port in use")]
    record = MemoryRecord()
    await volume.stage(tar_of(entry("data", b"new")), record)

    with pytest.raises(AppBusyError, match=r"it hangs\. The app could not be started again\."):
        await volume.recipe.restore(record, NotedProgress())

    assert (volume.directory / "data").read_text() == "old"


async def test_an_undo_with_which_the_app_does_not_start_leaves_the_imported_data(volume: Volume) -> None:
    (volume.directory / "data").write_text("old")
    record = await volume.import_(tar_of(entry("data", b"new")))
    volume.app.failures["start"] = [ToolFailedError("no")]

    with pytest.raises(ToolFailedError):
        await volume.recipe.undo(record, NotedProgress())

    assert (volume.directory / "data").read_text() == "new"
    await volume.recipe.undo(record, NotedProgress())
    assert (volume.directory / "data").read_text() == "old"


@pytest.mark.parametrize("removed", ["old", "old/data"])
async def test_an_undo_of_which_some_data_was_removed_says_so_before_the_app_is_stopped(
    removed: str, volume: Volume
) -> None:
    (volume.directory / "data").write_text("old")
    (volume.directory / "more").write_text("old")
    record = await volume.import_(tar_of(entry("data", b"new")))
    remove(volume.directory / ".mathison-data" / record.key / removed)

    with pytest.raises(NothingToUndoError):
        await volume.recipe.undo(record, NotedProgress())

    assert (volume.directory / "data").read_text() == "new"
    assert volume.app.calls == ["stop", "start"]


@pytest.mark.parametrize("removed", ["", "new", "new/data"])
async def test_what_was_staged_and_removed_is_told_before_the_app_is_stopped(removed: str, volume: Volume) -> None:
    (volume.directory / "data").write_text("old")
    record = MemoryRecord()
    await volume.stage(tar_of(entry("data", b"new")), record)
    remove(volume.directory / ".mathison-data" / record.key / removed)

    with pytest.raises(TransferNotFoundError, match="What was staged is gone"):
        await volume.recipe.restore(record, NotedProgress())

    assert (volume.directory / "data").read_text() == "old"
    assert volume.app.calls == []


async def test_an_app_that_cannot_be_stopped_is_told_before_the_upload_is_read(volume: Volume) -> None:
    volume.app.is_possible = False
    record = MemoryRecord()

    with pytest.raises(AppMustStopError, match=r"`stop` and `start` in the table \[app\]"):
        await volume.stage(b"never read", record)

    assert record.facts == {}
    assert not volume.has_leftovers
    description = await volume.recipe.describe()
    assert description.can_export.is_possible
    assert "`stop` and `start`" in description.can_import.obstacle


async def test_a_crash_between_stop_and_start_is_mended(volume: Volume) -> None:
    (volume.directory / "data").write_text("old")
    record = MemoryRecord()
    await volume.stage(tar_of(entry("data", b"new")), record)
    record.save(app_is_stopped=True)
    Swap(volume.directory, record.key).bring(Side.IMPORTED)

    recovered = await volume.recipe.recover(record)

    assert recovered is Recovered.IMPORTED
    assert volume.app.calls == ["start"]
    assert await volume.recipe.recover(record) is Recovered.IMPORTED
    assert volume.app.calls == ["start"]


async def test_an_agent_whose_disk_is_full_once_the_data_is_exchanged_has_imported_it(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    (volume.directory / "data").write_text("old")
    record = FullRecord()
    await volume.stage(tar_of(entry("data", b"new")), record)
    start = volume.app.start

    async def fill_and_start() -> None:
        record.is_full = True
        await start()

    monkeypatch.setattr(volume.app, "start", fill_and_start)
    await volume.recipe.restore(record, NotedProgress())

    assert (volume.directory / "data").read_text() == "new"
    record.is_full = False
    await volume.recipe.undo(record, NotedProgress())
    assert (volume.directory / "data").read_text() == "old"


@pytest.mark.parametrize(
    ("part", "instead", "error"),
    [('"version": 1', '"version": 2', UnknownVersionError), ('"done"', '"out"', InternalError)],
)
async def test_what_another_agent_or_an_unfinished_exchange_keeps_is_not_dropped(
    part: str, instead: str, error: type[ServiceError], volume: Volume
) -> None:
    (volume.directory / "data").write_text("old")
    record = await volume.import_(tar_of(entry("data", b"new")))
    kept = volume.directory / ".mathison-data" / record.key
    written = (kept / "swap.json").read_text()
    (kept / "swap.json").write_text(written.replace(part, instead))

    with pytest.raises(error):
        await volume.recipe.discard(record)

    assert (kept / "old" / "data").read_text() == "old"
    (kept / "swap.json").write_text(written)
    await volume.recipe.discard(record)
    assert not volume.has_leftovers


@pytest.mark.parametrize("removed", ["old", "new", "old/data"])
async def test_a_crash_after_the_exchange_is_found_out_although_some_of_what_is_kept_was_removed(
    removed: str, volume: Volume
) -> None:
    (volume.directory / "data").write_text("old")
    (volume.directory / "more").write_text("old")
    record = MemoryRecord()
    await volume.stage(tar_of(entry("data", b"new")), record)
    record.save(app_is_stopped=True)
    Swap(volume.directory, record.key).bring(Side.IMPORTED)
    remove(volume.directory / ".mathison-data" / record.key / removed)

    recovered = [await volume.recipe.recover(record) for _ in range(2)]

    assert recovered == [Recovered.IMPORTED] * 2
    assert (volume.directory / "data").read_text() == "new"
    assert volume.app.calls == ["start"]


async def test_an_app_that_does_not_start_is_not_given_back_half_of_its_data(volume: Volume) -> None:
    (volume.directory / "data").write_text("old")
    (volume.directory / "more").write_text("old")
    record = MemoryRecord()
    await volume.stage(tar_of(entry("data", b"new")), record)
    record.save(app_is_stopped=True)
    Swap(volume.directory, record.key).bring(Side.IMPORTED)
    (volume.directory / ".mathison-data" / record.key / "old" / "more").unlink()
    volume.app.failures["start"] = [ToolFailedError("no")]

    with pytest.raises(ToolFailedError, match="no"):
        await volume.recipe.recover(record)

    assert (volume.directory / "data").read_text() == "new"
    assert await volume.recipe.recover(record) is Recovered.IMPORTED
    assert volume.app.calls == ["start", "start"]


async def test_an_app_that_does_not_start_on_its_previous_data_after_a_crash_is_tried_again(volume: Volume) -> None:
    (volume.directory / "data").write_text("old")
    record = MemoryRecord()
    await volume.stage(tar_of(entry("data", b"new")), record)
    record.save(app_is_stopped=True)
    volume.app.failures["start"] = [ToolFailedError("port in use")]

    with pytest.raises(ToolFailedError, match="port in use"):
        await volume.recipe.recover(record)

    assert await volume.recipe.recover(record) is Recovered.PREVIOUS
    assert volume.app.calls == ["start", "start"]
    assert volume.app.is_running


async def test_an_app_is_started_after_a_crash_although_all_that_was_kept_is_gone(volume: Volume) -> None:
    record = MemoryRecord()
    await volume.stage(tar_of(entry("data", b"new")), record)
    record.save(app_is_stopped=True)
    remove(volume.directory / ".mathison-data")

    assert await volume.recipe.recover(record) is Recovered.PREVIOUS
    assert volume.app.calls == ["start"]


@pytest.mark.parametrize("gone", [("new",), ("old",), ("swap.json",), ("new", "old"), ("new", "old", "swap.json")])
async def test_an_undo_killed_while_the_imported_data_is_removed_is_done(gone: tuple[str, ...], volume: Volume) -> None:
    (volume.directory / "data").write_text("old")
    record = await volume.import_(tar_of(entry("data", b"new")))
    Swap(volume.directory, record.key).bring(Side.PREVIOUS)
    in_place.settle(record, Side.PREVIOUS)
    for name in gone:
        remove(volume.directory / ".mathison-data" / record.key / name)

    recovered = await volume.recipe.recover(record)
    await volume.recipe.discard(record)

    assert recovered is Recovered.PREVIOUS
    assert (volume.directory / "data").read_text() == "old"
    assert not volume.has_leftovers


class KilledError(BaseException):
    """The agent is gone."""


@pytest.mark.parametrize("step", ["restore", "undo"])
@pytest.mark.parametrize("removed", ["", "swap.json"])
@pytest.mark.parametrize("in_the_exchange", [False, True])
async def test_that_what_is_kept_is_gone_after_a_crash_proves_nothing(
    step: str, removed: str, in_the_exchange: bool, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    (volume.directory / "data").write_text("old")
    record = MemoryRecord()
    await volume.stage(tar_of(entry("data", b"new")), record)
    if step == "undo":
        await volume.recipe.restore(record, NotedProgress())

    def die(*_: object) -> None:
        raise KilledError

    async def die_while_stopping() -> None:
        die()

    with monkeypatch.context() as killed:
        if in_the_exchange:
            killed.setattr("agent.engines.swapping.Swap._run", die)
        else:
            killed.setattr(volume.app, "stop", die_while_stopping)
        with pytest.raises(KilledError):
            await getattr(volume.recipe, step)(record, NotedProgress())
    remove(volume.directory / ".mathison-data" / record.key / removed)
    calls = list(volume.app.calls)

    if in_the_exchange:
        with pytest.raises(InternalError, match="nobody can tell how far it came"):
            await volume.recipe.recover(record)
        assert volume.app.calls == calls
    else:
        wanted = Recovered.PREVIOUS if step == "restore" else Recovered.IMPORTED
        assert [await volume.recipe.recover(record) for _ in range(2)] == [wanted] * 2
        assert volume.app.calls == [*calls, "start"]
    assert (volume.directory / "data").read_text() == ("old" if step == "restore" else "new")


async def test_recovering_what_never_began_is_the_previous_data(volume: Volume) -> None:
    assert await volume.recipe.recover(MemoryRecord()) is Recovered.PREVIOUS


async def test_recovery_goes_back_when_the_app_does_not_start_with_the_imported_data(volume: Volume) -> None:
    (volume.directory / "data").write_text("old")
    record = MemoryRecord()
    await volume.stage(tar_of(entry("data", b"new")), record)
    record.save(app_is_stopped=True)
    Swap(volume.directory, record.key).bring(Side.IMPORTED)
    volume.app.failures["start"] = [ToolFailedError("no")]

    recovered = await volume.recipe.recover(record)

    assert recovered is Recovered.PREVIOUS
    assert (volume.directory / "data").read_text() == "old"
    assert volume.app.calls == ["start", "stop", "start"]


WRONG: dict[str, tuple[bytes, type[ServiceError]]] = {
    **{name: ATTACKS[name] for name in ("link-then-write", "device", "gzip-with-wrong-crc", "no-end")},
    "postgresql-custom": (b"PGDMP" + bytes(5000), ArchiveWrongKindError),
    "postgresql-sql": (b"--\n-- PostgreSQL database dump\n--\n" + b" " * 5000, ArchiveWrongKindError),
    "postgresql-tar": ATTACKS["postgresql-dump-in-tar"],
    "database": (b"SQLite format 3\0" + bytes(5000), ArchiveWrongKindError),
    "text": (b"hello world\n" * 1000, ArchiveWrongKindError),
    "nothing": (b"", ArchiveWrongKindError),
    "no-files": (tar_of(), ArchiveWrongKindError),
    "zip-cut": (b"PK\x03\x04" + bytes(1000), ArchiveTruncatedError),
    "zeros": (bytes(100_000), ArchiveWrongKindError),
}


@pytest.mark.parametrize("name", WRONG)
async def test_a_wrong_file_is_named_and_changes_nothing(name: str, volume: Volume) -> None:
    (volume.directory / "data").write_text("old")
    before = described(volume.directory)
    content, error = WRONG[name]
    record = MemoryRecord()

    with pytest.raises(error):
        await volume.stage(content, record)

    await volume.recipe.discard(record)
    assert described(volume.directory) == before
    assert not volume.has_leftovers
    assert volume.app.calls == []


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("format_name", FORMATS)
async def test_an_export_cut_anywhere_is_refused(format_name: str, share: float, volume: Volume) -> None:
    (volume.directory / "data").write_bytes(os.urandom(100_000))
    content = (await volume.export(format_name)).content
    record = MemoryRecord()

    with pytest.raises(ArchiveTruncatedError):
        await volume.stage(content[: int(len(content) * share)], record)

    await volume.recipe.discard(record)
    assert not volume.has_leftovers


async def test_an_export_of_another_recipe_is_refused_by_name(volume: Volume) -> None:
    content = (await volume.export("tar")).content.replace(b'"recipe":"volume"', b'"recipe":"minio1"')

    with pytest.raises(ArchiveWrongKindError, match="'minio1'"):
        await volume.stage(content, MemoryRecord())


async def test_a_cut_upload_leaves_nothing(volume: Volume) -> None:
    (volume.directory / "data").write_bytes(os.urandom(3 << 20))
    content = (await volume.export("tar.zst")).content

    async def cut() -> AsyncIterator[bytes]:
        yield content[: 2 << 20]
        raise UploadIncompleteError("the caller went away")

    record = MemoryRecord()
    with pytest.raises(UploadIncompleteError):
        await volume.recipe.stage(Upload(ArchiveHeader(), cut()), record, NotedProgress())

    await volume.recipe.discard(record)
    assert not volume.has_leftovers


async def test_too_little_room_is_said_before_anything_is_read(tmp_path: Path) -> None:
    volume = Volume(tmp_path / "volume")
    upload = Upload(ArchiveHeader(counts={"bytes": 1 << 60}), chunked(b"never read"))
    record = MemoryRecord()

    with pytest.raises(NoSpaceError):
        await volume.recipe.stage(upload, record, NotedProgress())

    assert not volume.has_leftovers


async def test_a_zip_gives_files_the_names_that_they_had(volume: Volume) -> None:
    made_on_linux = zip_of_raw_names({"Ü/ä.txt".encode(): b"1", b"n\xff": b"2"}, system=3)
    made_on_windows = zip_of_raw_names({"größe".encode("cp437"): b"1"}, system=0)

    preview = await volume.stage(made_on_linux, record := MemoryRecord())
    await volume.recipe.restore(record, NotedProgress())

    assert preview.warnings == ()
    assert sorted(os.listdir(os.fsencode(volume.directory))) == [b".mathison-data", b"n\xff", "Ü".encode()]
    assert (volume.directory / "Ü" / "ä.txt").read_bytes() == b"1"
    assert "(cp437): 'größe'" in (await volume.stage(made_on_windows, MemoryRecord())).warnings[0]


async def test_what_macos_adds_to_an_archive_is_told(volume: Volume) -> None:
    zipped = zip_of_raw_names({b"data": b"1", b"__MACOSX/._data": b"2", b"d/.DS_Store": b"3"}, system=19)
    packed = tar_of(entry("data", b"1"), entry("._data", b"2"))

    preview = await volume.stage(zipped, MemoryRecord())
    of_tar = await volume.stage(packed, record := MemoryRecord())
    await volume.recipe.restore(record, NotedProgress())

    assert "2 entries of the archive are macOS's own, not the app's, and come in with the rest" in preview.warnings[-1]
    assert "'__MACOSX/._data', 'd/.DS_Store'" in preview.warnings[-1]
    assert "1 entry of the archive is macOS's own" in of_tar.warnings[-1]
    exported = await volume.export()
    assert (await volume.stage(exported.content, MemoryRecord())).warnings == ()


async def test_links_that_lead_out_are_refused_unless_asked_for(volume: Volume) -> None:
    archive = tar_of(entry("ok", b"1"), entry("passwords", type=SYMLINK, linkname="/etc/shadow"))
    record = MemoryRecord()

    with pytest.raises(ArchiveRefusedError, match="'passwords' -> '/etc/shadow'") as raised:
        await volume.stage(archive, record)

    assert "outside_links=keep" in raised.value.next_step
    await volume.recipe.discard(record)
    kept = MemoryRecord()
    preview = await volume.stage(archive, kept, outside_links="keep")
    assert any("'passwords' -> '/etc/shadow'" in warning for warning in preview.warnings)


async def test_links_to_programs_and_links_that_the_app_has_already_are_taken(volume: Volume) -> None:
    (volume.directory / "d").mkdir()
    (volume.directory / "d" / "config").symlink_to("/etc/app/config")
    archive = tar_of(
        entry("python", type=SYMLINK, linkname="/usr/bin/python3"),
        entry("log", type=SYMLINK, linkname="/dev/stdout"),
        entry("d/config", type=SYMLINK, linkname="/etc/app/config"),
        entry("inside", type=SYMLINK, linkname=f"{volume.directory}/d"),
    )

    preview = await volume.stage(archive, MemoryRecord())

    assert not any("lead" in warning for warning in preview.warnings)


async def test_a_torn_database_in_a_foreign_archive_is_refused_unless_asked_for(volume: Volume, tmp_path: Path) -> None:
    make_ledger(tmp_path / "torn.db", mode="delete")
    torn = (tmp_path / "torn.db").read_bytes()[:-4096]
    archive = tar_of(entry("d/app.db", torn))
    record = MemoryRecord()

    with pytest.raises(ArchiveDamagedError, match=r"'d/app\.db'") as raised:
        await volume.stage(archive, record)

    assert "damaged_databases=keep" in raised.value.next_step
    await volume.recipe.discard(record)
    preview = await volume.stage(archive, MemoryRecord(), damaged_databases="keep")
    assert "is damaged" in preview.warnings[0]


async def test_a_database_that_was_damaged_when_exported_comes_back_as_it_was(volume: Volume) -> None:
    make_ledger(volume.directory / "app.db", mode="delete")
    with (volume.directory / "app.db").open("r+b") as file:
        file.seek(4096 * 4)
        file.write(bytes(100))
    before = (volume.directory / "app.db").read_bytes()
    exported = await volume.export("tar")
    wipe(volume.directory)

    record = MemoryRecord()
    preview = await volume.stage(exported.content, record)

    assert "SQLite finds the database 'app.db' damaged" in exported.warnings[0]
    assert "is damaged" in preview.warnings[0]
    await volume.recipe.restore(record, NotedProgress())
    # The file's header counts writes.
    assert (volume.directory / "app.db").read_bytes()[100:] == before[100:]


@pytest.mark.parametrize("mode", ["delete", "wal"])
@pytest.mark.parametrize("left_bytes", [3000, 5000, 8192, 9000])
async def test_a_database_that_is_cut_off_is_exported_as_the_bytes_that_are_there_and_told(
    mode: str, left_bytes: int, volume: Volume
) -> None:
    path = volume.directory / "app.db"
    with contextlib.closing(sqlite3.connect(path)) as app:
        app.executescript(f"PRAGMA journal_mode={mode}; CREATE TABLE t (a); INSERT INTO t VALUES (randomblob(6000));")
        assert app.execute("PRAGMA page_count").fetchone() == (3,)
    os.truncate(path, left_bytes)
    before = path.read_bytes()

    exported = await volume.export("tar")

    assert "'app.db'" in exported.warnings[0]
    assert "file is archived as it is" in exported.warnings[0]
    wipe(volume.directory)
    record = MemoryRecord()
    preview = await volume.stage(exported.content, record)
    assert "The SQLite database 'app.db' is damaged" in preview.warnings[0]
    await volume.recipe.restore(record, NotedProgress())
    assert path.read_bytes() == before


async def test_a_database_whose_last_page_is_half_in_its_file_and_whole_in_its_wal_is_whole(volume: Volume) -> None:
    path = volume.directory / "app.db"
    make_ledger(path)
    with contextlib.closing(sqlite3.connect(path)) as app:
        app.execute("PRAGMA wal_autocheckpoint=0")
        app.execute("CREATE TABLE more (a)")
        app.execute("INSERT INTO more VALUES (1)")
        app.commit()
        app.execute("SELECT 1 FROM more").fetchone()
        # As a checkpoint leaves it that was killed in the middle of the new page.
        os.truncate(path, path.stat().st_size + 1000)

        exported = await volume.export("tar")

    assert exported.warnings == []
    assert exported.counts["databases"] == 1


async def test_a_database_that_came_with_a_journal_that_names_another_file_is_refused(
    volume: Volume, tmp_path: Path
) -> None:
    make_unfinished(tmp_path / "a.db", super_journal=tmp_path / "other")
    archive = tar_of(*(entry(name, (tmp_path / name).read_bytes()) for name in ("a.db", "a.db-journal")))
    record = MemoryRecord()

    with pytest.raises(ArchiveRefusedError, match=r"'a\.db' cannot be imported: its journal names another"):
        await volume.stage(archive, record)
    await volume.recipe.discard(record)

    assert list(volume.directory.iterdir()) == []


async def test_a_database_that_came_with_its_wal_is_not_touched(volume: Volume, tmp_path: Path) -> None:
    make_ledger(tmp_path / "app.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "app.db")) as app:
        app.execute("PRAGMA wal_autocheckpoint=0")
        app.execute("UPDATE tag SET tag = 'in the wal'")
        app.commit()
        archive = tar_of(
            entry("app.db", (tmp_path / "app.db").read_bytes()),
            entry("app.db-wal", (tmp_path / "app.db-wal").read_bytes()),
        )

    record = MemoryRecord()
    preview = await volume.stage(archive, record)
    await volume.recipe.restore(record, NotedProgress())

    assert "not checked" in preview.warnings[0]
    assert state_of(volume.directory / "app.db") == (TOTAL, "in the wal")


async def test_what_a_killed_app_left_beside_its_database_is_in_the_snapshot_and_not_called_deleted(
    volume: Volume,
) -> None:
    database = volume.directory / "app.db"
    make_ledger(database)
    writer = "import sqlite3, os, sys; app = sqlite3.connect(sys.argv[1]); app.execute('PRAGMA journal_mode=WAL'); "
    writer += "app.execute(\"UPDATE tag SET tag = 'in the wal'\"); app.commit(); os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", writer, str(database)], check=False).returncode == -signal.SIGKILL
    assert (volume.directory / "app.db-wal").stat().st_size > 0

    exported = await volume.export("tar")
    wipe(volume.directory)
    await volume.import_(exported.content)

    assert exported.warnings == []
    assert state_of(database) == (TOTAL, "in the wal")


async def test_access_lists_come_back(volume: Volume) -> None:
    (volume.directory / "d").mkdir()
    (volume.directory / "d" / "file").write_bytes(b"content")
    os.setxattr(volume.directory / "d" / "file", "system.posix_acl_access", access_list(user=4321))
    os.setxattr(volume.directory / "d", "system.posix_acl_default", access_list(user=1234))
    before = described(volume.directory)
    exported = await volume.export("tar.zst")
    wipe(volume.directory)

    await volume.import_(exported.content)

    assert described(volume.directory, is_wanted=not_ours) == before
    assert os.getxattr(volume.directory / "d" / "file", "system.posix_acl_access") == access_list(user=4321)


async def test_a_file_of_a_hundred_gigabytes_of_holes_goes_out_and_in_for_some_kilobytes(volume: Volume) -> None:
    file = volume.directory / "disk.img"
    with file.open("wb") as opened:
        opened.truncate(100 << 30)
        os.pwrite(opened.fileno(), b"in the middle", 50 << 30)
    before = described(volume.directory)

    exported = await volume.export("tar")
    wipe(volume.directory)
    await volume.import_(exported.content)

    assert len(exported.content) < 64 << 10
    assert described(volume.directory, is_wanted=not_ours) == before
    assert file.stat().st_blocks * 512 < 1 << 20


async def test_what_changes_or_vanishes_while_it_is_read_is_told_at_the_end(volume: Volume) -> None:
    (volume.directory / "a").write_bytes(os.urandom(16 << 20))
    (volume.directory / "b").write_bytes(b"read after it")
    options = ExportOptions(format=VolumeRecipe.export_formats[2], app_id="a", file_name="f")

    async with volume.recipe.export_data(options, NotedProgress()) as export:
        content = [await anext(export.chunks)]
        # The archive's thread is a piece or two ahead, so in the middle of the first file.
        os.truncate(volume.directory / "a", 12 << 20)
        (volume.directory / "b").unlink()
        content += [chunk async for chunk in export.chunks]

    told = " ".join(export.warnings)
    assert "'a'" in told
    assert "'b'" in told
    with tarfile.open(fileobj=io.BytesIO(b"".join(content))) as archive:
        assert archive.getmember("a").size == 16 << 20
        assert "b" not in archive.getnames()


async def test_leaving_an_export_early_leaves_nothing(volume: Volume) -> None:
    (volume.directory / "data").write_bytes(os.urandom(20 << 20))
    make_ledger(volume.directory / "app.db", rows=2000)
    options = ExportOptions(format=VolumeRecipe.export_formats[0], app_id="a", file_name="f")
    descriptors = len(os.listdir("/proc/self/fd"))

    async with volume.recipe.export_data(options, NotedProgress()) as export:
        await anext(export.chunks)

    assert not volume.has_leftovers
    assert len(os.listdir("/proc/self/fd")) == descriptors


async def test_cancelling_an_export_that_waits_for_a_database_ends_it(volume: Volume) -> None:
    make_ledger(volume.directory / "app.db", mode="delete")
    options = ExportOptions(format=VolumeRecipe.export_formats[0], app_id="a", file_name="f")
    with contextlib.closing(sqlite3.connect(volume.directory / "app.db", isolation_level=None)) as app:
        app.execute("BEGIN EXCLUSIVE")

        async def export() -> None:
            async with volume.recipe.export_data(options, NotedProgress()) as export:
                async for _ in export.chunks:
                    pass

        exporting = asyncio.create_task(export())
        await until(lambda: bool(agent_children()))
        exporting.cancel()
        (outcome,) = await asyncio.gather(exporting, return_exceptions=True)

        app.execute("ROLLBACK")
    assert isinstance(outcome, asyncio.CancelledError)
    assert agent_children() == []
    assert not volume.has_leftovers


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"directory": "relative"},
        {"directory": "/"},
        {"directory": 5},
        {"directory": "/srv", "exclude": "cache"},
        {"directory": "/srv", "exclude": [""]},
        {"directory": "/srv", "excludes": []},
    ],
)
def test_settings_that_cannot_be_used_are_named(settings: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError):
        VolumeRecipe(
            Surroundings(
                app_id="a.b", work_directory=tmp_path, limits=Limits(), app_control=NotedApp(), settings=settings
            )
        )


@pytest.mark.parametrize("options", [{"outside_links": "maybe"}, {"colour": "red"}])
async def test_unknown_options_are_refused(options: dict[str, str], volume: Volume) -> None:
    with pytest.raises(InvalidRequestError, match="There are outside_links: refuse or keep"):
        await volume.stage(b"", MemoryRecord(), **options)


async def test_an_export_has_no_options(volume: Volume) -> None:
    options = ExportOptions(VolumeRecipe.export_formats[0], app_id="a", file_name="f", options={"level": "9"})

    with pytest.raises(InvalidRequestError, match="'level'"):
        async with volume.recipe.export_data(options, NotedProgress()):
            pass


async def test_a_volume_that_is_not_there_is_an_obstacle(volume: Volume) -> None:
    volume.directory.rmdir()

    description = await volume.recipe.describe()

    assert "cannot be read" in description.can_export.obstacle


async def test_a_volume_describes_itself(volume: Volume) -> None:
    (volume.directory / "data").write_bytes(b"x" * 10_000)

    description = await volume.recipe.describe()

    assert description.can_export.is_possible
    assert description.can_import.is_possible
    assert description.import_needs_app_stop
    assert description.estimated_bytes == 10_000
    assert description.details["directory"] == str(volume.directory)


@contextmanager
def volume_with_a_mount(volume: Volume) -> Iterator[tuple[Volume, str]]:
    """And where that is: for root one of the test's own, for others the first of those that /dev has on every Linux."""
    if IS_ROOT:
        with tmpfs(volume.directory / "d" / "inner mount"):
            yield volume, "d/inner mount"
    else:
        yield Volume(volume.directory, settings={"directory": "/dev"}), ""


async def test_a_mount_inside_the_volume_stands_against_an_import(volume: Volume) -> None:
    with volume_with_a_mount(volume) as (mounted, where):
        with pytest.raises(ServiceError, match=f"{where}.* is a mount of its own"):
            await mounted.stage(tar_of(entry("a", b"1")), MemoryRecord())

        assert where in (obstacle := (await mounted.recipe.describe()).can_import.obstacle)
        assert "is a mount of its own" in obstacle


@contextmanager
def little_room(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A directory with room for 32 MB, and what has to stay free: on a small disk of root's own, or on the one of disk
    and memory that the other tests do not write to."""
    if IS_ROOT:
        with tmpfs(tmp_path / "small", "-o", "size=64m"):
            yield tmp_path / "small", 32 << 20
    else:
        is_in_memory = tmp_path.is_relative_to("/dev/shm")
        with tempfile.TemporaryDirectory(dir="/tmp" if is_in_memory else "/dev/shm") as directory:
            yield Path(directory), shutil.disk_usage(directory).free - (32 << 20)


async def test_too_little_room_while_unpacking_leaves_nothing(tmp_path: Path) -> None:
    with little_room(tmp_path) as (directory, free_bytes):
        volume = Volume(directory / "volume", limits=Limits(free_bytes=free_bytes))
        record = MemoryRecord()

        with pytest.raises(NoSpaceError):
            await volume.stage(tar_of(entry("a", os.urandom(48 << 20))), record)

        await volume.recipe.discard(record)
        assert not volume.has_leftovers


async def test_owners_that_the_app_does_not_have_are_told(volume: Volume) -> None:
    (volume.directory / "data").touch()
    if IS_ROOT:
        os.chown(volume.directory / "data", 1000, 1000)

    preview = await volume.stage(tar_of(entry("data", b"1", uid=501, gid=20)), MemoryRecord())

    if IS_ROOT:
        assert "501:20" in preview.warnings[-1]
        assert "ownership=app" in preview.warnings[-1]
    else:
        assert "1 entries belong to another user than in the archive: the agent is not root." in preview.warnings


async def test_a_volume_has_the_same_fingerprint_in_its_archive_and_after_an_import(volume: Volume) -> None:
    make_nasty(volume.directory)
    (volume.directory / "program").chmod(0o751)
    make_ledger(volume.directory / "ledger.db")
    exported = await volume.export()
    before = await volume.recipe.fingerprint(NotedProgress())
    finder = FingerprintFinder()
    finder.add(exported.content)
    wipe(volume.directory)

    await volume.import_(exported.content, outside_links="keep")

    assert exported.fingerprint is not None
    assert exported.fingerprint.differences(before) == []
    assert finder.fingerprint() == before
    assert (await volume.recipe.fingerprint(NotedProgress())).differences(before) == []


async def test_databases_with_tables_of_any_kind_are_whole_and_compared(volume: Volume) -> None:
    for name in ("same.db", "changed.db"):
        add_odd_tables(volume.directory / name)
        add_table_of_unknown_module(volume.directory / name)
    exported = await volume.export()
    with contextlib.closing(sqlite3.connect(volume.directory / "changed.db")) as app:
        app.execute("UPDATE odd_keys SET b = 'y' WHERE a = 1")
        app.commit()

    preview = await volume.stage(exported.content, MemoryRecord())
    await volume.import_(exported.content)

    assert exported.warnings == []
    assert preview.items["databases"] == ItemChanges(same=1, changed=1)
    assert exported.fingerprint is not None
    assert (await volume.recipe.fingerprint(NotedProgress())).differences(exported.fingerprint) == []


async def test_what_changes_in_a_volume_changes_its_fingerprint(volume: Volume) -> None:
    make_nasty(volume.directory)
    changes: list[Callable[[Path], object]] = [
        lambda directory: (directory / "new").write_text("new"),
        lambda directory: (directory / "new").write_text("neu"),
        lambda directory: (directory / "new").chmod(0o600),
        lambda directory: (directory / "new").rename(directory / "newer"),
        lambda directory: (directory / "pointer").symlink_to("newer"),
        lambda directory: (directory / "new folder").mkdir(),
    ]
    found = {(await volume.recipe.fingerprint(NotedProgress())).sha256}

    for change in changes:
        change(volume.directory)
        found.add((await volume.recipe.fingerprint(NotedProgress())).sha256)

    assert len(found) == len(changes) + 1


async def test_an_export_of_a_volume_can_go_without_a_fingerprint(volume: Volume) -> None:
    (volume.directory / "a").write_text("a")

    exported = await volume.export(fingerprint="no")

    assert exported.fingerprint is None
    assert b"fingerprint.json" not in exported.content
