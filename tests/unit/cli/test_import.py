"""`mathison import` against a controller that behaves, and ones that do not."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import signal
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.client import Connection, Controller
from cli.failures import TransferBrokenError
from cli.importing import Importing, Source
from cli.progress import NoGauge
from tests.fakes.fake_controller import TOKEN, FakeController, app, finish_import
from tests.unit.cli.archives import sealed_sql
from tests.unit.cli.conftest import Ended, Mathison, until


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "shop.sql"
    path.write_bytes(sealed_sql())
    return path


async def test_an_archive_is_sent_with_its_digest_length_and_name(
    mathison: Mathison, controller: FakeController, archive: Path
) -> None:
    ended = await mathison("import", "shop.db", "shop.sql", "--yes", "--option", "schema=public")

    upload = controller.uploads[0]
    digest = base64.b64encode(hashlib.sha256(archive.read_bytes()).digest()).decode()
    assert (ended.exit_code, ended.stderr) == (0, "")
    assert upload.body == archive.read_bytes()
    assert upload.headers["Repr-Digest"] == f"sha-256=:{digest}:"
    assert upload.headers["Content-Length"] == str(archive.stat().st_size)
    assert "shop.sql" in upload.headers["Content-Disposition"]
    assert upload.query == {"option.schema": "public"}


async def test_the_result_says_what_is_kept_and_how_to_undo(
    mathison: Mathison, controller: FakeController, archive: Path
) -> None:
    ended = await mathison("import", "shop.db", "shop.sql", "--yes")

    assert "Imported into shop.db" in ended.text
    assert "2 tables, 40,000 rows; 1 table is new" in ended.text
    assert "kept until 2026-11-30 17:00" in ended.text
    assert "mathison undo shop.db" in ended.text


async def test_json_holds_the_transfers_last_state(
    mathison: Mathison, controller: FakeController, archive: Path
) -> None:
    ended = await mathison("import", "shop.db", "shop.sql", "--yes", "--json")

    document = ended.document
    assert (ended.exit_code, ended.stderr) == (0, "")
    assert set(document) == {"app_id", "file", "is_dry_run", "transfer", "seconds"}
    assert document["transfer"]["result"] == "succeeded"
    assert document["transfer"]["kept_until"] == "2026-11-30T17:00:12Z"


async def test_a_dry_run_needs_no_yes_and_says_that_nothing_was_changed(
    mathison: Mathison, controller: FakeController, archive: Path
) -> None:
    ended = await mathison("import", "shop.db", "shop.sql", "--dry-run")

    assert ended.exit_code == 0
    assert controller.uploads[0].query == {"dry_run": "true"}


async def test_a_dry_run_says_what_becomes_of_what_is_there_and_what_the_import_would_take(
    mathison: Mathison, controller: FakeController, archive: Path
) -> None:
    ended = await mathison("import", "shop.db", "shop.sql", "--dry-run")

    assert "Tables  1 new, 1 the same" in ended.text
    assert "Written by PostgreSQL 18, read by 13." in ended.text
    assert "Room beside the present data: about 5.0 MiB." in ended.text
    assert "Time: about 1 min 15 s, the last 2.0 s for the swap." in ended.text
    assert "can be imported into shop.db. Nothing was changed." in ended.text


async def test_without_a_terminal_and_without_yes_nothing_is_sent(
    mathison: Mathison, controller: FakeController, archive: Path
) -> None:
    ended = await mathison("import", "shop.db", "shop.sql")

    assert ended.exit_code == 2
    assert "Add --yes" in ended.stderr
    assert controller.requests == []


async def test_a_damaged_archive_is_refused_before_a_byte_is_sent(
    mathison: Mathison, controller: FakeController, archive: Path
) -> None:
    archive.write_bytes(archive.read_bytes()[:-200])

    ended = await mathison("import", "shop.db", "shop.sql", "--yes")

    assert ended.exit_code == 6
    assert "Nothing was sent and nothing was changed." in ended.stderr
    assert "import" not in controller.requests


@pytest.mark.parametrize("content", [bytes(200_000), sealed_sql()[:-200]], ids=["zeros", "a cut dump"])
async def test_a_zip_of_one_file_is_not_judged_by_that_where_the_app_takes_zips_as_they_are(
    mathison: Mathison, controller: FakeController, tmp_path: Path, content: bytes
) -> None:
    with zipfile.ZipFile(tmp_path / "files.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a file", content)

    as_volume = await _imported_into(mathison, controller, "volume", import_formats=["tar", "zip"])
    as_database = await _imported_into(mathison, controller, "postgresql", import_formats=["sql"])

    assert (as_volume.exit_code, len(controller.uploads)) == (0, 1), as_volume.stderr
    assert as_database.exit_code == 6


async def _imported_into(mathison: Mathison, controller: FakeController, recipe: str, **description: object) -> Ended:
    controller.apps = [app("shop.db", recipe=recipe, **description)]
    return await mathison("import", "shop.db", "files.zip", "--yes")


async def test_without_inspection_the_agent_decides(
    mathison: Mathison, controller: FakeController, archive: Path
) -> None:
    archive.write_bytes(archive.read_bytes()[:-200])
    controller.import_error = ("ARCHIVE_TRUNCATED", "The file is cut off. Nothing was changed.")

    ended = await mathison("import", "shop.db", "shop.sql", "--yes", "--no-inspect")

    assert ended.exit_code == 6
    assert "The file is cut off. Nothing was changed." in ended.stderr
    assert "Repr-Digest" in controller.uploads[0].headers


async def test_standard_input_is_sent_as_it_comes(mathison: Mathison, controller: FakeController) -> None:
    ended = await mathison("import", "shop.db", "-", "--yes", stdin=sealed_sql())

    assert ended.exit_code == 0
    assert controller.uploads[0].body == sealed_sql()
    assert "Repr-Digest" not in controller.uploads[0].headers


async def test_an_app_that_takes_no_import_is_told_before_the_file_is_read(
    mathison: Mathison, controller: FakeController
) -> None:
    controller.apps = [app("shop.db", can_import=False, import_obstacle="The server is a standby.")]

    ended = await mathison("import", "shop.db", "missing.sql", "--yes")

    assert ended.exit_code == 7
    assert ended.stderr.splitlines() == [
        "Error: Nothing can be imported into shop.db now: The server is a standby. Nothing was changed.",
        "Once that is mended, run the command again.",
    ]


async def test_an_agent_that_does_not_answer_is_told_before_the_file_is_read(
    mathison: Mathison, controller: FakeController
) -> None:
    controller.apps = [app("shop.db") | {"description": None, "obstacle": "The agent of shop.db does not answer."}]

    ended = await mathison("import", "shop.db", "missing.sql", "--yes")

    assert ended.exit_code == 7
    assert "The agent of shop.db does not answer. Nothing was changed." in ended.stderr


async def test_a_connection_lost_while_uploading_changed_nothing(
    mathison: Mathison, controller: FakeController, archive: Path
) -> None:
    controller.broken_import = "upload"
    archive.write_bytes(sealed_sql(rows=500_000))

    ended = await mathison("import", "shop.db", "shop.sql", "--yes")

    assert ended.exit_code == 8
    assert "Nothing was changed." in ended.stderr


async def test_a_connection_lost_while_restoring_ends_in_the_truth(
    mathison: Mathison, controller: FakeController, archive: Path
) -> None:
    controller.broken_import = "answer"

    ended = await mathison("import", "shop.db", "shop.sql", "--yes")

    assert ended.exit_code == 0
    assert "Imported into shop.db" in ended.text


async def test_an_agent_lost_in_the_middle_is_asked_once_it_is_back(
    mathison: Mathison, controller: FakeController, archive: Path
) -> None:
    controller.broken_import = "agent"

    ended = await mathison("import", "shop.db", "shop.sql", "--yes")

    assert ended.exit_code == 7
    assert "The agent was restarted; the data is as it was." in ended.stderr


async def test_an_import_that_ended_with_its_connection_is_told_from_the_callers_side(
    mathison: Mathison, controller: FakeController, archive: Path
) -> None:
    controller.broken_import = "caller"

    ended = await mathison("import", "shop.db", "shop.sql", "--yes")

    assert ended.exit_code == 8
    assert "The import ended with the connection. Nothing was changed." in ended.stderr
    assert "Run the command again." in ended.stderr


async def test_a_dry_run_of_which_nobody_can_tell_changed_nothing(controller: FakeController, archive: Path) -> None:
    controller.broken_import = "answer, forever"

    async with Controller(Connection(url=controller.url, token=TOKEN)) as client:
        with archive.open("rb") as file:
            importing = Importing(client, NoGauge(), warn=print, patience_seconds=0.2)
            with pytest.raises(TransferBrokenError) as caught:
                await importing.run("shop.db", Source(file, "shop.sql"), options={}, is_dry_run=True)

    assert "It was a dry run: nothing was changed." in caught.value.text


async def test_an_import_of_which_nobody_can_tell_is_not_called_a_failure(
    controller: FakeController, archive: Path
) -> None:
    controller.broken_import = "answer, forever"
    connection = Connection(url=controller.url, token=TOKEN)

    async with Controller(connection) as client:
        with archive.open("rb") as file:
            importing = Importing(client, NoGauge(), warn=print, patience_seconds=0.2)
            with pytest.raises(TransferBrokenError) as caught:
                await importing.run("shop.db", Source(file, "shop.sql"), options={}, is_dry_run=False)

    assert "it may have been put in place: either all of it or nothing." in caught.value.text
    assert "mathison transfers shop.db" in caught.value.next_step


async def test_an_import_that_its_agent_cannot_end_is_told_of_and_waited_for(
    controller: FakeController, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.following.UNSETTLED_SECONDS", 0)
    controller.broken_import = "fault"
    locked: dict[str, Any] = {"can_import": False, "import_obstacle": "It is locked."}
    controller.apps = [app("shop.db", running={"transfer_id": "t-1"}, **locked)]
    warnings: list[str] = []

    async with Controller(Connection(url=controller.url, token=TOKEN)) as client:
        with archive.open("rb") as file:
            importing = Importing(client, NoGauge(), warn=warnings.append)
            running = asyncio.create_task(
                importing.run("shop.db", Source(file, "shop.sql"), options={}, is_dry_run=False)
            )
            await until(lambda: controller.requests.count("app") > 1)
            told_while_it_runs = list(warnings)
            controller.apps = [app("shop.db", **locked)]
            await until(lambda: bool(warnings))
            asked = controller.requests.count("app")
            await until(lambda: controller.requests.count("app") > asked + 1)
            [state] = controller.states.values()
            finish_import(state, is_dry_run=False)
            report = await running

    assert told_while_it_runs == []
    [told] = warnings
    assert told.startswith("It is locked. Until then nobody knows whether shop.db has the data from before or the")
    assert f"`mathison transfers shop.db` what becomes of {state['transfer_id']}." in told
    assert report.transfer.result == "succeeded"


async def test_ctrl_c_cancels_an_import(start: Callable[..., Any], controller: FakeController, archive: Path) -> None:
    controller.broken_import = "hold"

    async with start("import", "shop.db", "shop.sql", "--yes") as process:
        await until(lambda: bool(controller.uploads))
        process.send_signal(signal.SIGINT)
        _, stderr = await asyncio.wait_for(process.communicate(), 20)

    assert process.returncode == 130
    assert b"The import was cancelled and nothing was changed." in stderr
    assert len(controller.cancelled) == 1


@pytest.mark.parametrize(
    ("swap_result", "said"),
    [
        ("", b"is being swapped in already; the agent finishes that, or takes it back."),
        ("succeeded", b"Stopped too late: the import is done."),
        ("cancelled", b"The import was cancelled and nothing was changed."),
        ("failed", b"The import had failed already: The server went away. Nothing was changed."),
    ],
)
async def test_ctrl_c_during_the_swap_says_what_became_of_it(
    start: Callable[..., Any],
    controller: FakeController,
    archive: Path,
    swap_result: str,
    said: bytes,
) -> None:
    controller.broken_import = "hold"
    controller.can_cancel = False
    controller.swap_result = swap_result

    async with start("import", "shop.db", "shop.sql", "--yes") as process:
        await until(lambda: bool(controller.uploads))
        process.send_signal(signal.SIGINT)
        _, stderr = await asyncio.wait_for(process.communicate(), 20)

    assert process.returncode == 130
    assert said in stderr


async def test_sigterm_while_waiting_for_silent_standard_input_ends_at_once(
    start: Callable[..., Any], controller: FakeController
) -> None:
    async with start("import", "shop.db", "-", "--yes") as process:
        await until(lambda: "import" in controller.requests)
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), 20)

    assert process.returncode == 130
