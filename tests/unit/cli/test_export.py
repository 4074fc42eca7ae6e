"""`mathison export` against a controller that behaves, and ones that do not."""

from __future__ import annotations

import asyncio
import hashlib
import os
import resource
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.client import Connection, Controller
from cli.exporting import Exporting
from cli.failures import StoppedError
from cli.output import Output
from cli.progress import NoGauge
from tests.fakes.fake_controller import TOKEN, FakeController, app
from tests.unit.cli.conftest import Mathison, until


async def test_an_export_is_written_under_its_own_name_for_its_owner_only(
    mathison: Mathison, controller: FakeController, tmp_path: Path
) -> None:
    ended = await mathison("export", "shop.db")

    written = tmp_path / controller.file_name
    assert (ended.exit_code, ended.stderr) == (0, "")
    assert written.read_bytes() == controller.archive
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    assert hashlib.sha256(controller.archive).hexdigest() in ended.text
    assert [path.name for path in tmp_path.iterdir()] == [controller.file_name]


async def test_json_names_file_size_digest_and_counts(
    mathison: Mathison, controller: FakeController, tmp_path: Path
) -> None:
    ended = await mathison("export", "shop.db", "-o", "out.sql.gz", "--json")

    document = ended.document
    assert (ended.exit_code, ended.stderr) == (0, "")
    assert set(document) == {
        "transfer_id", "app_id", "file", "size_bytes", "sha256", "counts", "warnings", "fingerprint", "seconds",
    }  # fmt: skip
    assert document["file"] == "out.sql.gz"
    assert document["size_bytes"] == len(controller.archive)
    assert document["sha256"] == hashlib.sha256(controller.archive).hexdigest()
    assert document["counts"] == {"tables": 2}


async def test_an_export_that_ended_with_its_connection_is_told_from_the_callers_side(
    mathison: Mathison, controller: FakeController, tmp_path: Path
) -> None:
    controller.cut_after, controller.cut_result = 100_000, "cancelled"

    ended = await mathison("export", "shop.db")

    assert ended.exit_code == 8
    assert f"The connection to {controller.url} broke. The export is cancelled. No file was kept." in ended.stderr
    assert "caller" not in ended.stderr


async def test_a_broken_download_leaves_no_file_and_says_what_broke_it(
    mathison: Mathison, controller: FakeController, tmp_path: Path
) -> None:
    controller.cut_after = 100_000

    ended = await mathison("export", "shop.db")

    assert ended.exit_code == 8
    assert "pg_dump was ended by SIGKILL. No file was kept." in ended.stderr
    assert "cannot be resumed" in ended.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "claimed",
    [
        pytest.param((320_000, "0" * 64), id="digest"),
        pytest.param((320_001, hashlib.sha256(b"archive " * 40_000).hexdigest()), id="size"),
    ],
)
async def test_a_download_that_differs_from_what_the_agent_counted_is_thrown_away(
    mathison: Mathison, controller: FakeController, tmp_path: Path, claimed: tuple[int, str]
) -> None:
    controller.claimed = claimed

    ended = await mathison("export", "shop.db")

    assert ended.exit_code == 8
    assert "What arrived is not what the agent of shop.db sent" in ended.stderr
    assert list(tmp_path.iterdir()) == []


async def test_a_download_that_nobody_vouches_for_stays_a_part_file(
    mathison: Mathison, controller: FakeController, tmp_path: Path
) -> None:
    controller.forgets_transfers = True

    ended = await mathison("export", "shop.db", "-o", "out.gz", "--json")

    assert ended.exit_code == 8
    assert ended.document["error"]["reason"] == "TRANSFER_BROKEN"
    assert "not proven whole" in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["out.gz.part"]


async def test_standard_output_carries_the_archive_and_nothing_else(
    mathison: Mathison, controller: FakeController
) -> None:
    ended = await mathison("export", "shop.db", "-o", "-")

    assert ended.exit_code == 0
    assert ended.stdout == controller.archive
    assert hashlib.sha256(controller.archive).hexdigest() in ended.stderr


async def test_a_broken_download_to_standard_output_shows_in_the_exit_code(
    mathison: Mathison, controller: FakeController
) -> None:
    controller.cut_after = 100_000

    ended = await mathison("export", "shop.db", "-o", "-")

    assert ended.exit_code == 8
    assert "worthless" in ended.stderr


async def test_an_existing_file_is_kept_unless_force_is_given(
    mathison: Mathison, controller: FakeController, tmp_path: Path
) -> None:
    target = tmp_path / "out.gz"
    target.write_bytes(b"precious")

    refused = await mathison("export", "shop.db", "-o", "out.gz")
    kept = target.read_bytes()
    forced = await mathison("export", "shop.db", "-o", "out.gz", "--force")

    assert (refused.exit_code, kept) == (9, b"precious")
    assert "out.gz exists already" in refused.stderr
    assert (forced.exit_code, target.read_bytes()) == (0, controller.archive)


async def test_a_file_that_was_to_be_replaced_is_said_to_be_as_it_was(
    mathison: Mathison, controller: FakeController, tmp_path: Path
) -> None:
    (tmp_path / "out.gz").write_bytes(b"precious")
    controller.cut_after = 100_000

    ended = await mathison("export", "shop.db", "-o", "out.gz", "--force")

    assert ended.exit_code == 8
    assert "pg_dump was ended by SIGKILL. out.gz is as it was." in ended.stderr
    assert "No file was kept" not in ended.stderr
    assert (tmp_path / "out.gz").read_bytes() == b"precious"


async def test_a_file_of_the_servers_own_name_is_not_replaced_either(
    mathison: Mathison, controller: FakeController, tmp_path: Path
) -> None:
    (tmp_path / controller.file_name).write_bytes(b"precious")
    controller.holds_export = True

    ended = await mathison("export", "shop.db")

    assert ended.exit_code == 9
    assert (tmp_path / controller.file_name).read_bytes() == b"precious"


async def test_a_part_file_of_another_export_is_not_touched(
    mathison: Mathison, controller: FakeController, tmp_path: Path
) -> None:
    (tmp_path / "out.gz.part").write_bytes(b"another's")

    ended = await mathison("export", "shop.db", "-o", "out.gz", "--force")

    assert ended.exit_code == 9
    assert "another export is writing it" in ended.stderr
    assert (tmp_path / "out.gz.part").read_bytes() == b"another's"


async def test_a_device_is_not_replaced_even_by_force(mathison: Mathison, controller: FakeController) -> None:
    ended = await mathison("export", "shop.db", "-o", "/dev/null", "--force")

    assert ended.exit_code == 9
    assert "not an ordinary file" in ended.stderr
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


@pytest.mark.parametrize("proposed", ["../../evil.sh", "/etc/evil.sh", "..\\evil.sh", ".evil.sh"])
async def test_a_name_proposed_by_the_server_stays_in_this_folder(
    mathison: Mathison, controller: FakeController, tmp_path: Path, proposed: str
) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    controller.file_name = proposed

    ended = await mathison("export", "shop.db", "-o", str(folder))

    assert ended.exit_code == 0
    assert [path.name for path in folder.iterdir()] == ["evil.sh"]


async def test_a_folder_that_is_not_there_is_not_taken_for_a_file(
    mathison: Mathison, controller: FakeController, tmp_path: Path
) -> None:
    ended = await mathison("export", "shop.db", "-o", "missing/")

    assert ended.exit_code == 9
    assert list(tmp_path.iterdir()) == []


async def test_what_the_app_and_its_export_both_warn_of_is_said_once(
    mathison: Mathison, controller: FakeController
) -> None:
    controller.apps = [app("shop.db", warnings=["2 tables are not InnoDB."])]
    controller.export_warnings = ["2 tables are not InnoDB.", "1 event has passed."]

    told = await mathison("export", "shop.db")
    document = (await mathison("export", "shop.db", "-o", "other", "--json")).document

    assert told.stderr == "Warning: 2 tables are not InnoDB.\nWarning: 1 event has passed.\n"
    assert document["warnings"] == controller.export_warnings


async def test_a_disk_without_any_room_is_told_before(mathison: Mathison, controller: FakeController) -> None:
    ended = await mathison("export", "shop.db", "-o", "/proc/out.gz")

    assert "before compression, and only 0 bytes are free in /proc." in ended.stderr
    assert ended.exit_code == 9


@pytest.mark.parametrize(
    ("destination", "said"), [("loop/out.gz", "too many levels of symbolic links"), ("x" * 300, "file name too long")]
)
async def test_a_name_that_cannot_be_looked_for_is_told_before_anything_is_exported(
    mathison: Mathison, controller: FakeController, tmp_path: Path, destination: str, said: str
) -> None:
    (tmp_path / "loop").symlink_to("loop")

    ended = await mathison("export", "shop.db", "-o", destination)

    assert ended.exit_code == 9
    assert f"{destination} cannot be written: {said}." in ended.stderr
    assert controller.requests == []


def _close_standard_output() -> None:
    os.close(1)


async def test_a_closed_standard_output_is_named_and_the_transfer_cancelled(
    start: Callable[..., Any], controller: FakeController
) -> None:
    controller.archive = bytes(64 << 20)

    async with start("export", "shop.db", "-o", "-", preexec_fn=_close_standard_output) as process:
        _, stderr = await asyncio.wait_for(process.communicate(), 20)

    assert process.returncode == 9
    assert b"standard output is closed." in stderr
    assert len(controller.cancelled) == 1


async def test_a_full_disk_is_named_and_the_transfer_cancelled(
    start: Callable[..., Any], controller: FakeController
) -> None:
    controller.archive = bytes(64 << 20)

    with Path("/dev/full").open("wb") as full:
        async with start("export", "shop.db", "-o", "-", stdout=full) as process:
            _, stderr = await asyncio.wait_for(process.communicate(), 20)

    assert process.returncode == 9
    assert b"No space is left for standard output" in stderr
    assert len(controller.cancelled) == 1


async def test_a_file_that_cannot_grow_is_removed(
    start: Callable[..., Any], controller: FakeController, tmp_path: Path
) -> None:
    controller.archive = bytes(4 << 20)

    async with start("export", "shop.db", "-o", "out.gz", preexec_fn=_limit_file_size) as process:
        _, stderr = await asyncio.wait_for(process.communicate(), 20)

    assert process.returncode == 9
    assert b"out.gz cannot be written: file too large." in stderr
    assert list(tmp_path.iterdir()) == []


def _limit_file_size() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))


async def test_a_reader_that_goes_away_ends_the_export(start: Callable[..., Any], controller: FakeController) -> None:
    controller.archive = bytes(8 << 20)

    async with start("export", "shop.db", "-o", "-") as process:
        await process.stdout.read(1)
        process.stdout._transport.close()
        await asyncio.wait_for(process.wait(), 20)
        stderr = await process.stderr.read()

    assert process.returncode == 9
    assert b"The program that standard output leads to ended before the export did." in stderr


async def test_ctrl_c_cancels_the_transfer_and_removes_the_part_file(
    start: Callable[..., Any], controller: FakeController, tmp_path: Path
) -> None:
    controller.holds_export = True

    async with start("export", "shop.db", "-o", "out.gz") as process:
        await until((tmp_path / "out.gz.part").exists)
        process.send_signal(signal.SIGINT)
        _, stderr = await asyncio.wait_for(process.communicate(), 20)

    assert process.returncode == 130
    assert b"The export was cancelled. No file was kept." in stderr
    assert b"Traceback" not in stderr
    assert len(controller.cancelled) == 1
    assert list(tmp_path.iterdir()) == []


async def test_ctrl_c_while_the_controller_hangs_does_not_claim_that_the_export_is_cancelled(
    controller: FakeController, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.following.CANCEL_SECONDS", 0.2)
    controller.holds_export = controller.holds_cancel = True
    async with Controller(Connection(url=controller.url, token=TOKEN)) as client:
        exporting = asyncio.create_task(
            Exporting(client, Output(is_json=False, is_quiet=True), NoGauge()).run(
                "shop.db", destination=str(tmp_path / "out.gz"), format="", options={}, may_replace=False
            )
        )
        await until((tmp_path / "out.gz.part").exists)

        exporting.cancel()
        await until(lambda: "cancel" in controller.requests)
        left_while_waiting = list(tmp_path.iterdir())
        with pytest.raises(StoppedError) as stopped:
            await exporting

    assert left_while_waiting == []
    assert "The controller does not answer; it ends the export when it notices" in stopped.value.text
    assert "was cancelled" not in stopped.value.text


async def test_the_files_ending_chooses_the_format(mathison: Mathison, controller: FakeController) -> None:
    controller.apps = [app("shop.db")]

    plain = await mathison("export", "shop.db", "-o", "out.sql")
    other = await mathison("export", "shop.db", "-o", "out.bin")

    assert (plain.exit_code, other.exit_code) == (0, 0)
    assert controller.formats == ["sql", ""]
