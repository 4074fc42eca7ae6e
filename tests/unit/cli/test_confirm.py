"""`mathison confirm` against a controller that behaves, and ones that go away in the middle."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any

import pytest

from cli.client import Connection, Controller
from cli.confirming import confirm_import
from cli.failures import TransferBrokenError
from cli.progress import NoGauge
from tests.fakes.fake_controller import TOKEN, FakeController, app, running
from tests.unit.cli.conftest import Mathison, until

KEPT = running("cli-kept", "import") | {"result": "succeeded", "kept_until": "2026-11-30T17:00:12Z"}


@pytest.fixture
def controller(controller: FakeController) -> FakeController:
    """One whose app keeps the data from before an import."""
    controller.apps = [app("shop.db", kept=KEPT)]
    return controller


async def test_the_import_that_is_confirmed_is_the_one_that_was_seen(
    mathison: Mathison, controller: FakeController
) -> None:
    ended = await mathison("confirm", "shop.db", "--yes", "--json")

    assert (ended.exit_code, ended.stderr) == (0, "")
    assert ended.document == {"confirmed": True}
    assert controller.states["cli-kept"]["kept_until"] is None


@pytest.mark.parametrize("loss", ["answer", "agent"])
async def test_what_was_dropped_though_the_connection_broke_is_reported_as_dropped(
    mathison: Mathison, controller: FakeController, loss: str
) -> None:
    controller.broken_confirm = loss

    ended = await mathison("confirm", "shop.db", "--yes")

    assert (ended.exit_code, ended.stderr) == (0, "")
    assert "is dropped. That import cannot be undone any more." in ended.text


async def test_a_confirmation_that_was_lost_with_its_controller_changed_nothing(
    mathison: Mathison, controller: FakeController
) -> None:
    controller.broken_confirm = "controller"

    ended = await mathison("confirm", "shop.db", "--yes")

    assert ended.exit_code == 8
    assert "broke. The data from before was not dropped. Nothing was changed." in ended.stderr
    assert "Run the command again." in ended.stderr


async def test_a_confirmation_of_which_nobody_can_tell_may_have_dropped_the_data(controller: FakeController) -> None:
    controller.broken_confirm = "answer, forever"

    async with Controller(Connection(url=controller.url, token=TOKEN)) as client:
        with pytest.raises(TransferBrokenError) as caught:
            await confirm_import(client, NoGauge(), "shop.db", patience_seconds=0.2)

    assert "Now nobody can be asked whether the data from before was dropped. It may have been." in caught.value.text
    assert "mathison transfers shop.db" in caught.value.next_step


async def test_an_agent_that_had_begun_nothing_is_not_asked_what_became_of_it(
    mathison: Mathison, controller: FakeController
) -> None:
    text = "The agent of shop.db does not answer or went away. Nothing was changed."
    controller.refusals["confirm"] = (503, "AGENT_UNAVAILABLE", text)

    ended = await mathison("confirm", "shop.db", "--yes")

    assert ended.exit_code == 7
    assert text in ended.stderr
    assert "transfer" not in controller.requests


async def test_ctrl_c_does_not_bring_back_what_is_dropped_and_says_so(
    start: Callable[..., Any], controller: FakeController
) -> None:
    controller.broken_confirm = "hold"

    async with start("confirm", "shop.db", "--yes") as process:
        await until(lambda: "cli-kept" in controller.states)
        process.send_signal(signal.SIGINT)
        _, stderr = await asyncio.wait_for(process.communicate(), 20)

    assert process.returncode == 130
    assert b"Stopped too late: the data from before the last import of shop.db is dropped." in stderr
