"""`mathison undo` against a controller that behaves, and ones that go away in the middle."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any

import pytest

from cli.client import Connection, Controller
from cli.failures import TransferBrokenError
from cli.progress import NoGauge
from cli.undoing import undo_import
from tests.fakes.fake_controller import TOKEN, FakeController, app, running
from tests.unit.cli.conftest import Mathison, until

KEPT = running("cli-kept", "import") | {"result": "succeeded", "kept_until": "2026-11-30T17:00:12Z"}


@pytest.fixture
def controller(controller: FakeController) -> FakeController:
    """One whose app keeps the data from before an import."""
    controller.apps = [app("shop.db", kept=KEPT)]
    return controller


async def test_the_import_that_is_undone_is_the_one_that_was_seen(
    mathison: Mathison, controller: FakeController
) -> None:
    ended = await mathison("undo", "shop.db", "--yes", "--json")

    assert (ended.exit_code, ended.stderr) == (0, "")
    assert (ended.document["transfer_id"], ended.document["undone"]) == ("cli-kept", True)


async def test_what_is_to_be_known_of_the_data_that_is_back_is_a_warning(
    mathison: Mathison, controller: FakeController
) -> None:
    controller.undo_note = "Two files are there by name only."

    ended = await mathison("undo", "shop.db", "--yes")

    assert (ended.exit_code, ended.stderr) == (0, "Warning: Two files are there by name only.\n")


@pytest.mark.parametrize("loss", ["answer", "agent", "drop, slowly"])
async def test_an_undo_that_went_on_without_its_connection_is_reported_as_done(
    mathison: Mathison, controller: FakeController, loss: str
) -> None:
    controller.broken_undo = loss

    ended = await mathison("undo", "shop.db", "--yes")

    assert (ended.exit_code, ended.stderr) == (0, "")
    assert "shop.db has the data again that it had before the import" in ended.text


async def test_an_undo_that_its_agent_cannot_end_is_told_of_and_waited_for(
    controller: FakeController, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.following.UNSETTLED_SECONDS", 0)
    controller.broken_undo = "drop, slowly"
    controller.apps = [app("shop.db", kept=KEPT, can_import=False, import_obstacle="It is locked.")]
    warnings: list[str] = []

    async with Controller(Connection(url=controller.url, token=TOKEN)) as client:
        state = await undo_import(client, NoGauge(), "shop.db", warn=warnings.append)

    [told] = warnings
    assert told.startswith("It is locked. Until then nobody knows whether shop.db has the data from before or the")
    assert "`mathison transfers shop.db` what becomes of cli-kept." in told
    assert state.undone


async def test_an_undo_that_was_lost_with_its_controller_changed_nothing(
    mathison: Mathison, controller: FakeController
) -> None:
    controller.broken_undo = "controller"

    ended = await mathison("undo", "shop.db", "--yes")

    assert ended.exit_code == 8
    assert "The undo was not carried out. Nothing was changed." in ended.stderr
    assert "Run the command again." in ended.stderr


async def test_an_undo_of_which_nobody_can_tell_may_be_done(controller: FakeController) -> None:
    controller.broken_undo = "answer, forever"

    async with Controller(Connection(url=controller.url, token=TOKEN)) as client:
        with pytest.raises(TransferBrokenError) as caught:
            await undo_import(client, NoGauge(), "shop.db", warn=print, patience_seconds=0.2)

    assert "It may have been carried out: either all of it or nothing." in caught.value.text
    assert "mathison transfers shop.db" in caught.value.next_step


async def test_an_undo_that_ended_with_a_fault_and_is_not_put_right_is_not_waited_for(
    controller: FakeController,
) -> None:
    controller.broken_undo = "fault"

    async with Controller(Connection(url=controller.url, token=TOKEN)) as client, asyncio.timeout(30):
        with pytest.raises(TransferBrokenError) as caught:
            await undo_import(client, NoGauge(), "shop.db", warn=print, patience_seconds=0.2)

    assert caught.value.text == (
        "A fault of the agent ended this. The app is not brought to one side yet; its agent goes on trying."
    )
    assert "`mathison apps` tells what it waits for" in caught.value.next_step


async def test_without_an_agent_nothing_is_asked_for_and_nothing_changed(
    mathison: Mathison, controller: FakeController
) -> None:
    controller.apps = [
        app("shop.db") | {"description": None, "obstacle": "The agent of shop.db does not answer or went away."}
    ]

    ended = await mathison("undo", "shop.db", "--yes")

    assert ended.exit_code == 7
    assert "The agent of shop.db does not answer or went away. Nothing was changed." in ended.stderr
    assert "undo" not in controller.requests


async def test_a_token_that_may_not_read_undoes_the_last_import(mathison: Mathison, controller: FakeController) -> None:
    controller.refusals["app"] = (403, "NOT_PERMITTED", "The token lacks the scope 'read'.")

    ended = await mathison("undo", "shop.db", "--yes", "--json")

    assert ended.exit_code == 0
    assert ended.document["undone"] is True


@pytest.mark.parametrize("pace", ["hold", "slowly"], ids=["done", "not-begun-yet"])
async def test_ctrl_c_does_not_end_an_undo_and_says_what_became_of_it(
    start: Callable[..., Any], controller: FakeController, pace: str
) -> None:
    controller.broken_undo = pace

    stderr = await stopped(start, lambda: "cli-kept" in controller.states)

    assert "Stopped too late: the undo is done" in stderr


async def test_ctrl_c_says_that_an_undo_failed_which_was_seen_to_begin(
    start: Callable[..., Any], controller: FakeController
) -> None:
    controller.broken_undo = "fail slowly"

    stderr = await stopped(start, lambda: "cli-kept" in controller.states)

    assert "Stopped. The undo failed, and shop.db has the imported data. Nothing was changed." in stderr


async def test_ctrl_c_while_a_broken_undo_is_asked_about_still_says_what_became_of_it(
    start: Callable[..., Any], controller: FakeController
) -> None:
    controller.broken_undo = "answer, forever"

    def comes_back() -> bool:
        is_asking = "transfer" in controller.requests
        if is_asking:
            controller.states["cli-kept"]["undone"] = True
            asyncio.get_running_loop().call_later(0.7, controller.refusals.clear)
        return is_asking

    stderr = await stopped(start, comes_back)

    assert "Stopped too late: the undo is done" in stderr


async def stopped(start: Callable[..., Any], is_time: Callable[[], bool]) -> str:
    """What an undo says that gets a Ctrl-C then."""
    async with start("undo", "shop.db", "--yes") as process:
        await until(is_time)
        process.send_signal(signal.SIGINT)
        _, stderr = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 130
    return str(stderr, "utf-8")
