"""What the next agent makes of what the last one left when it was killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import NoReturn

import pytest

from agent.states import Phase, Result
from agent.versions import UnknownVersionError, not_read
from common.errors import (
    AppUnavailableError,
    ArchiveRefusedError,
    ArchiveWrongKindError,
    NothingToUndoError,
    ServiceError,
    TransferNotFoundError,
)
from tests.unit.agent.conftest import Setting


@pytest.fixture
async def killed(setting: Setting) -> AsyncIterator[dict[str, asyncio.Event]]:
    """Events that keep the first agent where it was "killed"; it is let go when the test is over."""
    events: dict[str, asyncio.Event] = {}
    yield events
    for event in events.values():
        event.set()
    await asyncio.sleep(0)


async def kill_at(setting: Setting, step: str, killed: dict[str, asyncio.Event], work: Awaitable[object]) -> None:
    """Run an operation up to a step, and never see its agent again."""
    killed[step] = asyncio.Event()
    reached = asyncio.Event()

    async def stay() -> None:
        reached.set()
        await killed[step].wait()

    setting.recipe.at[step] = stay
    running = asyncio.ensure_future(work)
    running.add_done_callback(lambda done: done.cancelled() or done.exception())
    await reached.wait()
    setting.restart()


def raising(error: Exception) -> Callable[[], NoReturn]:
    """A step that fails."""

    def fail() -> NoReturn:
        raise error

    return fail


@pytest.mark.parametrize("step", ["stage begun", "stage chunk", "stage received"])
async def test_an_import_killed_while_it_was_staged_leaves_nothing(
    setting: Setting, killed: dict[str, asyncio.Event], step: str
) -> None:
    await kill_at(setting, step, killed, setting.stage("t-1"))

    await setting.transfers.housekeeping.recover()

    assert setting.recipe.live == b"old data"
    assert setting.recipe.beside == set()
    assert setting.journal_lines == 0
    state = setting.state("t-1")
    assert (state.phase, state.result) == (Phase.DONE, Result.FAILED)
    assert state.failure is not None
    assert state.failure.reason == "AGENT_UNAVAILABLE"
    assert "Nothing was changed." in state.failure.message


async def test_what_an_import_had_changed_outside_before_the_agent_was_killed_is_told(
    setting: Setting, killed: dict[str, asyncio.Event]
) -> None:
    await kill_at(setting, "stage chunk", killed, setting.stage("t-1"))
    setting.recipe.found_outside = ArchiveRefusedError("The file renamed the database; it was put back.")

    await setting.transfers.housekeeping.recover()

    failure = setting.state("t-1").failure
    assert failure is not None
    assert failure.message == "The file renamed the database; it was put back. Nothing was changed."
    assert setting.journal_lines == 0


async def test_what_a_restore_that_was_taken_back_left_is_told(
    setting: Setting, killed: dict[str, asyncio.Event]
) -> None:
    await setting.stage("t-1")
    await kill_at(setting, "restore halfway", killed, setting.restore("t-1"))
    setting.recipe.found_outside = AppUnavailableError("A bucket was left.")
    setting.recipe.found_outside.says_what_changed = True

    await setting.transfers.housekeeping.recover()

    failure = setting.state("t-1").failure
    assert failure is not None
    assert failure.message == "A bucket was left."
    assert setting.journal_lines == 0


async def test_an_app_that_does_not_say_what_was_changed_outside_is_asked_again(
    setting: Setting, killed: dict[str, asyncio.Event]
) -> None:
    await kill_at(setting, "stage chunk", killed, setting.stage("t-1"))
    setting.recipe.at["put right"] = raising(AppUnavailableError("The server is away."))
    await setting.transfers.housekeeping.recover()
    assert setting.journal_lines == 1

    del setting.recipe.at["put right"]
    await setting.transfers.housekeeping.tidy()

    assert setting.state("t-1").result is Result.FAILED
    assert setting.journal_lines == 0


async def test_an_import_that_was_only_staged_is_dropped(setting: Setting) -> None:
    await setting.stage("t-1")
    setting.restart()

    await setting.transfers.housekeeping.recover()

    assert setting.recipe.beside == set()
    with pytest.raises(TransferNotFoundError):
        await setting.restore("t-1")


@pytest.mark.parametrize(
    ("step", "content"),
    [("restore begun", b"old data"), ("restore halfway", b"old data"), ("restore swapped", b"new data")],
)
async def test_an_import_killed_while_it_was_restored_is_on_one_side(
    setting: Setting, killed: dict[str, asyncio.Event], step: str, content: bytes
) -> None:
    await setting.stage("t-1")
    await kill_at(setting, step, killed, setting.restore("t-1"))

    await setting.transfers.housekeeping.recover()

    assert setting.recipe.live == content
    if content == b"new data":
        assert setting.state("t-1").result is Result.SUCCEEDED
        assert (await setting.undo()).undone
        assert setting.recipe.live == b"old data"
    else:
        assert setting.state("t-1").result is Result.FAILED
    assert setting.recipe.beside == set()
    assert setting.journal_lines == 0


@pytest.mark.parametrize(("step", "undone"), [("undo begun", False), ("undo swapped", True)])
async def test_an_import_killed_while_it_was_undone_is_on_one_side(
    setting: Setting, killed: dict[str, asyncio.Event], step: str, undone: bool
) -> None:
    await setting.run_import("t-1")
    await kill_at(setting, step, killed, setting.undo("t-1"))

    await setting.transfers.housekeeping.recover()

    state = setting.state("t-1")
    assert (state.result, state.undone) == (Result.SUCCEEDED, undone)
    assert (await setting.undo("t-1")).undone
    assert setting.recipe.live == b"old data"
    assert setting.recipe.beside == set()


async def test_previous_data_stays_kept_over_a_restart(setting: Setting) -> None:
    before = await setting.run_import("t-1")
    setting.restart()

    await setting.transfers.housekeeping.recover()

    assert setting.state("t-1") == before
    assert (await setting.undo()).undone
    assert setting.recipe.live == b"old data"


async def test_only_the_latest_of_two_kept_imports_stays_kept(
    setting: Setting, killed: dict[str, asyncio.Event]
) -> None:
    await setting.run_import("t-1", b"first")
    setting.clock.advance(60)
    await setting.stage("t-2", b"second")
    await kill_at(setting, "discard", killed, setting.restore("t-2"))

    await setting.transfers.housekeeping.recover()

    assert setting.journal_lines == 1
    await setting.undo()
    assert setting.recipe.live == b"first"


@pytest.mark.parametrize("is_restarted", [True, False], ids=["after a restart", "by the same agent"])
async def test_an_import_that_is_settled_late_leaves_no_older_one_kept(setting: Setting, *, is_restarted: bool) -> None:
    await setting.run_import("t-1", b"first")
    setting.clock.advance(60)
    await setting.stage("t-2", b"second")
    setting.recipe.at["restore swapped"] = raising(RuntimeError("it went away"))
    setting.recipe.at["recover"] = raising(AppUnavailableError("It does not answer."))
    with pytest.raises(AppUnavailableError):
        await setting.restore("t-2")
    if is_restarted:
        setting.restart()
        setting.recipe.at["recover"] = raising(AppUnavailableError("It does not answer."))
        await setting.transfers.housekeeping.recover()
    kept_while_unsettled = setting.state("t-1").kept_until
    del setting.recipe.at["recover"]

    await setting.transfers.housekeeping.tidy()

    assert kept_while_unsettled is not None
    with pytest.raises(NothingToUndoError):
        await setting.undo("t-1")
    assert (await setting.undo()).transfer_id == "t-2"
    assert setting.recipe.live == b"first"
    assert setting.recipe.beside == set()


async def test_of_two_kept_imports_the_later_stays_kept_though_the_clock_was_set_back_between_them(
    setting: Setting, killed: dict[str, asyncio.Event]
) -> None:
    await setting.run_import("t-1", b"first")
    setting.clock.set_back(3600)
    await setting.stage("t-2", b"second")
    await kill_at(setting, "restore swapped", killed, setting.restore("t-2"))

    await setting.transfers.housekeeping.recover()

    assert (await setting.undo()).transfer_id == "t-2"
    assert setting.recipe.live == b"first"


async def test_transfers_are_told_in_the_order_of_their_beginning_after_a_restart_too(setting: Setting) -> None:
    setting.clock.advance(60)
    await setting.run_import("kept")
    for transfer_id in ("z-later", "a-after-that", "clock-set-back"):
        if transfer_id == "clock-set-back":
            setting.clock.set_back(7200)
        async with aclosing(setting.transfers.export(transfer_id, "", {})) as export:
            async for _ in export:
                pass
    before = [state.transfer_id for state in setting.transfers.list()]
    setting.restart()
    await setting.transfers.housekeeping.recover()
    setting.clock.set_back(60)
    await setting.stage("new")

    assert before == ["clock-set-back", "a-after-that", "z-later", "kept"]
    assert [state.transfer_id for state in setting.transfers.list()] == ["new", *before]


async def test_an_app_that_is_down_does_not_keep_the_agent_from_starting(
    setting: Setting, killed: dict[str, asyncio.Event]
) -> None:
    await setting.stage("t-1")
    await kill_at(setting, "restore halfway", killed, setting.restore("t-1"))
    setting.recipe.at["recover"] = raising(AppUnavailableError("It does not answer"))

    await setting.transfers.housekeeping.recover()

    with pytest.raises(AppUnavailableError, match=r"t-1 was interrupted.*It does not answer"):
        await anext(setting.transfers.export("t-2", "", {}))
    obstacle = (await setting.transfers.overview()).description.can_import.obstacle
    assert "t-1 was interrupted" in obstacle
    assert "It does not answer. See that the app runs" in obstacle
    del setting.recipe.at["recover"]
    await setting.transfers.housekeeping.tidy()
    assert setting.recipe.live == b"old data"
    assert (await setting.run_import("t-3")).result is Result.SUCCEEDED


async def export(setting: Setting) -> list[object]:
    """All frames of one."""
    return [frame async for frame in setting.transfers.export("an-export", "", {})]


def what_is_there(setting: Setting) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in setting.recipe.directory.iterdir()}


@pytest.mark.parametrize(("operation", "step"), [("restore", "restore halfway"), ("undo", "undo swapped")])
async def test_a_swap_that_an_agent_of_another_version_noted_waits_for_that_one(
    setting: Setting, killed: dict[str, asyncio.Event], operation: str, step: str
) -> None:
    await (setting.stage("t-1") if operation == "restore" else setting.run_import("t-1"))
    await kill_at(setting, step, killed, setting.restore("t-1") if operation == "restore" else setting.undo("t-1"))
    before = what_is_there(setting)
    setting.rewrite_journal("1", "7")

    await setting.transfers.housekeeping.recover()
    setting.clock.advance(1_000_000)
    await setting.transfers.housekeeping.tidy()

    assert what_is_there(setting) == before
    told = "t-1 was noted by another agent in a form that this agent does not read: it is of version 7, not 1. Nothing"
    for refused in (
        *(export(setting), setting.stage("t-2"), setting.restore("t-1"), setting.undo()),
        setting.transfers.discard(""),
    ):
        with pytest.raises(AppUnavailableError, match=told):
            await refused
    described = (await setting.transfers.overview()).description
    assert told in described.can_import.obstacle
    assert told in described.can_export.obstacle
    assert f"move {next((setting.directory / 'journal').iterdir())} away" in described.can_import.obstacle

    setting.rewrite_journal("7", "1")
    setting.restart()
    await setting.transfers.housekeeping.recover()

    assert setting.recipe.live == b"old data"
    assert setting.recipe.beside == set()
    assert (await setting.run_import("t-3")).result is Result.SUCCEEDED


async def test_what_an_agent_of_another_version_keeps_is_not_dropped_and_not_in_the_way_of_exports(
    setting: Setting,
) -> None:
    await setting.run_import("t-1")
    setting.rewrite_journal("1", "7")
    setting.restart()
    beside = setting.recipe.beside

    await setting.transfers.housekeeping.recover()
    setting.clock.advance(1_000_000)
    await setting.transfers.housekeeping.tidy()

    assert setting.recipe.beside == beside == {"previous"}
    assert await export(setting)
    await setting.transfers.fingerprint()
    for refused in (setting.stage("t-2"), setting.undo(), setting.undo("t-1"), setting.transfers.discard("")):
        with pytest.raises(AppUnavailableError, match="does not read"):
            await refused
    described = (await setting.transfers.overview()).description
    assert "does not read" in described.can_import.obstacle
    assert described.can_export.is_possible


async def test_a_recipe_at_fault_while_recovering_does_not_end_the_agent(
    setting: Setting, killed: dict[str, asyncio.Event]
) -> None:
    await setting.stage("t-1")
    await kill_at(setting, "restore halfway", killed, setting.restore("t-1"))
    setting.recipe.at["recover"] = raising(RuntimeError("secret detail"))

    await setting.transfers.housekeeping.recover()

    with pytest.raises(ServiceError) as caught:
        await setting.stage("t-2")
    assert "secret" not in caught.value.text
    assert f"move {next((setting.directory / 'journal').iterdir())} away" in caught.value.next_step
    assert (await setting.transfers.overview()).running is None


async def test_an_undo_of_what_was_noted_in_a_form_that_is_not_read_is_told_how_to_go_on(setting: Setting) -> None:
    await setting.run_import("t-1")
    setting.recipe.at["undo begun"] = raising(not_read("Import t-1", "", "its way is sideways"))

    with pytest.raises(UnknownVersionError, match="does not read: its way is sideways") as caught:
        await setting.undo("t-1")

    assert f"move {next((setting.directory / 'journal').iterdir())} away" in caught.value.next_step
    assert setting.recipe.live == b"new data"
    assert setting.state("t-1").kept_until is not None


@pytest.mark.parametrize("ending", ["confirmed", "expired", "replaced", "failed"])
async def test_what_is_noted_beside_an_import_in_a_form_that_is_not_read_is_told_and_not_tried_again(
    setting: Setting, ending: str
) -> None:
    failed = ending == "failed"
    before = None if failed else await setting.run_import("t-1")
    tries = []

    def discard() -> NoReturn:
        tries.append("discard")
        raise not_read("The exchange", "another", "it is of version 2, not 1")

    setting.recipe.at["discard"] = discard
    told = "What import t-1 keeps cannot be dropped: The exchange was noted by another in a form that this agent"
    if ending == "confirmed":
        with pytest.raises(UnknownVersionError, match=told) as caught:
            await setting.transfers.discard("t-1")
        assert "given up" not in caught.value.text
        assert f"move {next((setting.directory / 'journal').iterdir())} away" in caught.value.next_step
    elif ending == "expired":
        setting.clock.advance(1_000_000)
    elif ending == "replaced":
        await setting.run_import("t-2", b"newer data")
    else:
        with pytest.raises(ArchiveWrongKindError):
            await setting.stage("t-1", b"BAD")

    for _ in range(3):
        await setting.transfers.housekeeping.tidy()

    assert tries == ["discard"]
    line = next(path for path in (setting.directory / "journal").iterdir() if "t-1" in path.read_text())
    described = (await setting.transfers.overview()).description
    assert told in described.can_import.obstacle
    assert f"move {line} away" in described.can_import.obstacle
    assert described.can_export.is_possible
    for refused in (setting.stage("t-3"), setting.undo("t-1"), setting.transfers.discard("")):
        with pytest.raises(AppUnavailableError, match=told):
            await refused
    assert setting.recipe.beside
    if before is not None:
        assert setting.state("t-1") == before

    del setting.recipe.at["discard"]
    setting.restart()
    await setting.transfers.housekeeping.recover()
    await setting.transfers.housekeeping.tidy()
    assert setting.recipe.beside == ({"previous"} if ending in ("confirmed", "replaced") else set())
    assert (await setting.run_import("t-4")).result is Result.SUCCEEDED


async def test_a_line_that_was_left_alone_is_forgotten_once_it_is_moved_away(setting: Setting) -> None:
    await setting.run_import("t-1")
    setting.recipe.at["discard"] = raising(not_read("The exchange", "another", "it is of version 2, not 1"))
    with pytest.raises(UnknownVersionError):
        await setting.transfers.discard("t-1")

    next((setting.directory / "journal").iterdir()).unlink()

    assert (await setting.run_import("t-2")).result is Result.SUCCEEDED
    assert (await setting.transfers.overview()).description.can_import.is_possible


async def test_holes_in_memory_are_given_back_before_a_transfer_and_after_it_but_not_within(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    course: list[str] = []
    monkeypatch.setattr("common.heap.give_back", lambda: course.append("given back"))

    async def stay() -> None:
        course.append("begun")
        await setting.transfers.housekeeping.tidy()
        course.append("staged")

    setting.recipe.at["stage begun"] = stay
    await setting.stage("t-1")
    await setting.transfers.housekeeping.tidy()

    assert course == ["given back", "begun", "staged", "given back"]
