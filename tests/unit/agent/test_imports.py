from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import Any

import pytest

from agent.states import Phase, Result, TransferState
from common.errors import (
    AgentUnavailableError,
    AppBusyError,
    AppUnavailableError,
    ArchiveRefusedError,
    ArchiveWrongKindError,
    CancelledError,
    DigestMismatchError,
    InternalError,
    InvalidRequestError,
    LimitExceededError,
    NoSpaceError,
    NothingToUndoError,
    ServiceError,
    TransferInProgressError,
    TransferNotFoundError,
    UploadIncompleteError,
)
from common.headers import ArchiveHeader
from mathison.data.v1 import transfer_pb2 as wire
from tests.fixtures.uploads import frame_list, frames
from tests.fixtures.waiting import until
from tests.unit.agent.conftest import RULES, Setting


def raiser(error: Exception) -> Callable[[], None]:
    """An action for FakeRecipe.at."""

    def act() -> None:
        raise error

    return act


async def waiting(*given: wire.Frame) -> AsyncIterator[wire.Frame]:
    """An upload that stops in the middle and never goes on."""
    for frame in given:
        yield frame
    await asyncio.Event().wait()


def is_untouched(setting: Setting) -> bool:
    """The app's data is as it was and nothing is left over."""
    return setting.recipe.live == b"old data" and not setting.recipe.beside and setting.journal_lines == 0


# Stage


async def test_a_staged_import_changes_nothing_and_shows_what_it_would_change(setting: Setting) -> None:
    state = await setting.stage("t-1")

    assert (state.phase, state.result) == (Phase.STAGED, None)
    assert state.preview is not None
    assert state.preview.changes == ("8 bytes",)
    assert state.needs_app_stop
    told = state.to_proto().preview
    assert told.items["files"] == wire.ItemChanges(changed=1)
    assert (told.room_bytes, told.swap_seconds, told.import_seconds) == (8, 3, 3)
    assert state.receipt is not None
    assert state.read_bytes == 8
    assert setting.recipe.live == b"old data"
    assert setting.recipe.beside == {"staged"}


async def test_a_preview_that_cannot_be_told_leaves_nothing_and_does_not_spoil_the_list(setting: Setting) -> None:
    setting.recipe.counts_after = {"files": -1}

    with pytest.raises(InternalError):
        await setting.stage("t-1")

    assert is_untouched(setting)
    assert [state.to_proto().transfer_id for state in setting.transfers.list()] == ["t-1"]


async def test_of_an_uploaders_end_frame_only_what_was_checked_is_kept(setting: Setting) -> None:
    content = list(frame_list(b"new data"))
    content[-1].end.warnings.append("x" * 5000)

    async def upload() -> AsyncIterator[wire.Frame]:
        for frame in content:
            yield frame

    [*_, state] = [state async for state in setting.transfers.stage("t-1", upload(), {}, dry_run=False)]

    assert state.receipt is not None
    assert (state.receipt.size_bytes, state.receipt.warnings) == (8, ())


async def test_a_dry_run_shows_the_same_and_leaves_nothing(setting: Setting) -> None:
    state = await setting.stage("t-1", dry_run=True)

    assert (state.phase, state.result) == (Phase.STAGED, Result.SUCCEEDED)
    assert state.preview is not None
    assert is_untouched(setting)
    with pytest.raises(TransferNotFoundError):
        await setting.restore("t-1")


@pytest.mark.parametrize(
    ("upload", "expected"),
    [
        pytest.param([], UploadIncompleteError, id="nothing at all"),
        pytest.param(frame_list(b"new data", end=False), UploadIncompleteError, id="no end frame"),
        pytest.param(frame_list(end=False), UploadIncompleteError, id="a header only"),
        pytest.param(frame_list(b"new data", sha256="00" * 32), DigestMismatchError, id="another digest"),
        pytest.param([wire.Frame(chunk=b"x")], InvalidRequestError, id="no header"),
        pytest.param([*frame_list(b"x", end=False), wire.Frame(chunk=b"")], InvalidRequestError, id="empty chunk"),
        pytest.param([*frame_list(b"x", end=False)] * 2, InvalidRequestError, id="two headers"),
        pytest.param(frame_list(b"x" * 600, b"x" * 600), LimitExceededError, id="over the limit"),
        pytest.param(frame_list(b"BAD file"), ArchiveWrongKindError, id="a wrong file"),
        pytest.param(
            frame_list(b"x", header=ArchiveHeader(size_bytes=1001)), LimitExceededError, id="announced over the limit"
        ),
        pytest.param(
            frame_list(b"the end STOP", end=False), UploadIncompleteError, id="no end frame after the format's"
        ),
        pytest.param(
            frame_list(b"the end STOP", b"more", sha256="00" * 32),
            DigestMismatchError,
            id="damage after the format's end",
        ),
    ],
)
async def test_an_upload_that_is_not_whole_or_not_right_leaves_nothing(
    setting: Setting, upload: list[wire.Frame], expected: type[ServiceError]
) -> None:
    content = list(upload)

    async def send() -> AsyncIterator[wire.Frame]:
        for frame in content:
            yield frame

    with pytest.raises(expected, match=r"[.!?] Nothing was changed\.$"):
        async for _ in setting.transfers.stage("t-1", send(), {}, dry_run=False):
            pass

    assert is_untouched(setting)
    assert setting.state("t-1").result is Result.FAILED
    assert (await setting.run_import("t-2")).result is Result.SUCCEEDED


async def test_what_follows_the_formats_own_end_is_received_and_checked(setting: Setting) -> None:
    upload = frames(b"the end STOP", b"padding")

    last = [state async for state in setting.transfers.stage("t-1", upload, {}, dry_run=False)][-1]

    assert last.phase is Phase.STAGED
    assert last.read_bytes == 19


@pytest.mark.parametrize("step", ["stage begun", "stage chunk", "stage received"])
async def test_a_recipe_that_fails_while_staging_leaves_nothing(setting: Setting, step: str) -> None:
    setting.recipe.at[step] = raiser(NoSpaceError("Full."))

    with pytest.raises(NoSpaceError, match=r"^Full\. Nothing was changed\.$"):
        await setting.stage("t-1")

    assert is_untouched(setting)


async def test_a_refusal_that_says_itself_what_was_changed_is_left_as_it_is(setting: Setting) -> None:
    refusal = ArchiveWrongKindError("The file changed a role.")
    refusal.says_what_changed = True
    setting.recipe.at["stage chunk"] = raiser(refusal)

    with pytest.raises(ArchiveWrongKindError, match=r"^The file changed a role\.$"):
        await setting.stage("t-1")


async def test_a_fault_while_staging_is_hidden_and_leaves_nothing(setting: Setting) -> None:
    setting.recipe.at["stage received"] = raiser(RuntimeError("secret detail"))

    with pytest.raises(InternalError, match="t-1") as caught:
        await setting.stage("t-1")

    assert "secret" not in caught.value.text
    assert is_untouched(setting)


async def test_a_caller_that_leaves_before_the_end_leaves_nothing(setting: Setting) -> None:
    upload = waiting(*frame_list(b"new", end=False))
    async with aclosing(setting.transfers.stage("t-1", upload, {}, dry_run=False)) as states:
        async for state in states:
            if state.read_bytes:
                break

    assert is_untouched(setting)
    assert setting.state("t-1").result is Result.CANCELLED


async def test_cancel_ends_a_stage_and_its_caller_hears_of_it(setting: Setting) -> None:
    states = setting.transfers.stage("t-1", waiting(*frame_list(b"new", end=False)), {}, dry_run=False)
    await anext(states)

    state = await setting.transfers.cancel("t-1")

    assert state.result is Result.CANCELLED
    with pytest.raises(CancelledError):
        async for _ in states:
            pass
    assert is_untouched(setting)


@pytest.mark.parametrize("dry_run", [False, True])
async def test_cancel_waits_for_a_stage_whose_caller_has_left_already(setting: Setting, dry_run: bool) -> None:
    upload = waiting(*frame_list(b"new", end=False))
    states = setting.transfers.stage("t-1", upload, {}, dry_run=dry_run)
    await anext(states)

    state = await _cancelled_while_discarding(setting, states.aclose())

    assert state.result is Result.CANCELLED
    assert is_untouched(setting)


async def test_a_dry_run_that_is_cancelled_at_its_very_end_is_over(setting: Setting) -> None:
    state = await _cancelled_while_discarding(setting, setting.stage("t-1", dry_run=True))

    assert state.result is Result.SUCCEEDED
    assert is_untouched(setting)


async def _cancelled_while_discarding(setting: Setting, ending: Coroutine[Any, Any, object]) -> TransferState:
    """What a cancel is told that comes while what was staged is being dropped, and has to wait for that."""
    tidied = asyncio.Event()
    setting.recipe.at["discard"] = tidied.wait
    running = asyncio.create_task(ending)
    await until(lambda: setting.recipe.has_reached("discard"))

    cancelling = asyncio.create_task(setting.transfers.cancel("t-1"))
    await asyncio.sleep(0)
    tidied.set()

    await running
    return await cancelling


async def test_cancel_drops_what_is_staged(setting: Setting) -> None:
    await setting.stage("t-1")

    state = await setting.transfers.cancel("t-1")

    assert state.result is Result.CANCELLED
    assert is_untouched(setting)


async def test_a_caller_that_sends_nothing_loses_its_transfer(setting: Setting) -> None:
    setting.restart(rules=dataclasses.replace(RULES, idle_seconds=0.01))

    with pytest.raises(UploadIncompleteError, match="sent nothing"):
        async for _ in setting.transfers.stage("t-1", waiting(*frame_list(b"x", end=False)), {}, dry_run=False):
            pass

    assert is_untouched(setting)


async def test_a_new_stage_takes_the_place_of_what_was_staged(setting: Setting) -> None:
    await setting.stage("t-1")

    await setting.stage("t-2", b"newer data")

    assert setting.journal_lines == 1
    assert setting.state("t-1").result is Result.CANCELLED
    assert (await setting.restore("t-2")).result is Result.SUCCEEDED
    assert setting.recipe.live == b"newer data"


async def test_a_file_that_is_refused_only_in_the_swap_has_failed_with_that_and_holds_nothing(setting: Setting) -> None:
    await setting.stage("t-1")
    setting.recipe.at["restore begun"] = raiser(ArchiveRefusedError("The file touched the previous data."))

    with pytest.raises(ArchiveRefusedError):
        await setting.restore("t-1")

    assert is_untouched(setting)
    setting.restart()
    await setting.transfers.housekeeping.recover()
    state = setting.state("t-1")
    assert (state.phase, state.result) == (Phase.DONE, Result.FAILED)
    assert state.failure is not None
    assert state.failure.reason == "ARCHIVE_REFUSED"
    assert state.failure.message == "The file touched the previous data. Nothing was changed."


@pytest.mark.parametrize("ending", ["another import", "a restart", "its time is over"])
async def test_an_import_whose_swap_failed_ends_with_the_reason_for_that(setting: Setting, ending: str) -> None:
    await setting.stage("t-1")
    setting.recipe.at["restore begun"] = raiser(AppBusyError("Somebody holds the tables."))
    with pytest.raises(AppBusyError):
        await setting.restore("t-1")

    if ending == "another import":
        await setting.stage("t-2")
    elif ending == "a restart":
        setting.restart()
        await setting.transfers.housekeeping.recover()
    else:
        setting.clock.advance(3601)
        await setting.transfers.housekeeping.tidy()

    state = setting.state("t-1")
    assert (state.result, state.phase) == (Result.FAILED, Phase.DONE)
    assert state.failure is not None
    assert (state.failure.reason, state.failure.message) == (
        "APP_BUSY",
        "Somebody holds the tables. Nothing was changed.",
    )


async def test_what_cannot_be_dropped_at_once_is_dropped_later(setting: Setting) -> None:
    setting.recipe.at["discard"] = raiser(AppUnavailableError("Down."))
    with pytest.raises(ArchiveWrongKindError):
        await setting.stage("t-1", b"BAD")
    assert setting.recipe.beside == {"staged"}

    del setting.recipe.at["discard"]
    await setting.transfers.housekeeping.tidy()

    assert is_untouched(setting)


async def test_an_id_can_be_used_again_while_its_leftovers_wait_to_be_dropped(setting: Setting) -> None:
    setting.recipe.at["discard"] = raiser(AppUnavailableError("Down."))
    with pytest.raises(ArchiveWrongKindError):
        await setting.stage("t-1", b"BAD")
    del setting.recipe.at["discard"]

    await setting.run_import("t-1")
    await setting.transfers.housekeeping.tidy()

    assert setting.recipe.live == b"new data"
    assert setting.recipe.beside == {"previous"}
    assert setting.journal_lines == 1


# Restore


async def test_restoring_swaps_and_keeps_the_previous_data(setting: Setting) -> None:
    state = await setting.run_import("t-1")

    assert (state.phase, state.result, state.undone) == (Phase.DONE, Result.SUCCEEDED, False)
    assert state.kept_until is not None
    assert (state.kept_until - setting.clock.now()) == RULES.keep_previous
    assert setting.recipe.live == b"new data"
    assert setting.recipe.beside == {"previous"}


async def test_restoring_again_answers_the_state(setting: Setting) -> None:
    first = await setting.run_import("t-1")

    assert await setting.restore("t-1") == first


@pytest.mark.parametrize("transfer_id", ["t-1", "never"])
async def test_what_is_not_staged_cannot_be_restored(setting: Setting, transfer_id: str) -> None:
    with pytest.raises(ArchiveWrongKindError):
        await setting.stage("t-1", b"BAD")

    with pytest.raises(TransferNotFoundError):
        await setting.restore(transfer_id)


async def test_a_restore_that_fails_can_be_repeated(setting: Setting) -> None:
    await setting.stage("t-1")
    setting.recipe.at["restore begun"] = raiser(AppBusyError("Still busy."))
    with pytest.raises(AppBusyError, match=r"^Still busy\. Nothing was changed\.$"):
        await setting.restore("t-1")
    waiting_state = setting.state("t-1")
    del setting.recipe.at["restore begun"]

    state = await setting.restore("t-1")

    assert (waiting_state.phase, waiting_state.result) == (Phase.STAGED, None)
    assert "Still busy." in waiting_state.note
    assert state.result is Result.SUCCEEDED


@pytest.mark.parametrize("step", ["restore begun", "restore halfway"])
async def test_a_fault_before_the_swap_brings_the_app_back_to_its_data(setting: Setting, step: str) -> None:
    await setting.stage("t-1")
    setting.recipe.at[step] = raiser(RuntimeError("secret detail"))

    with pytest.raises(InternalError, match="t-1"):
        await setting.restore("t-1")

    assert is_untouched(setting)
    assert setting.state("t-1").result is Result.FAILED


async def test_an_app_that_went_away_in_the_middle_is_named_until_it_is_back(setting: Setting) -> None:
    await setting.stage("t-1")
    setting.recipe.at["restore halfway"] = raiser(RuntimeError("it does not come back"))
    setting.recipe.at["recover"] = raiser(AppUnavailableError("It does not answer."))

    with pytest.raises(
        AppUnavailableError, match=r"away in the middle of import t-1.*It does not answer\.$"
    ) as refused:
        await setting.restore("t-1")
    phase_meanwhile = setting.state("t-1").phase
    del setting.recipe.at["recover"]
    await setting.transfers.housekeeping.tidy()

    assert "Start the app again" in refused.value.next_step
    assert phase_meanwhile is Phase.RESTORING
    assert setting.state("t-1").result is Result.FAILED
    assert is_untouched(setting)


async def test_a_fault_after_the_swap_is_a_done_import(setting: Setting) -> None:
    await setting.stage("t-1")
    setting.recipe.at["restore swapped"] = raiser(RuntimeError("secret detail"))

    state = await setting.restore("t-1")

    assert state.result is Result.SUCCEEDED
    assert setting.recipe.live == b"new data"
    assert (await setting.undo()).undone


async def test_a_restore_goes_on_when_its_caller_leaves(setting: Setting) -> None:
    await setting.stage("t-1")
    go_on = asyncio.Event()
    setting.recipe.at["restore halfway"] = go_on.wait
    async with aclosing(setting.transfers.restore("t-1")) as states:
        await anext(states)

    go_on.set()
    async with aclosing(setting.transfers.watch("t-1")) as states:
        last = [state async for state in states][-1]

    assert last.result is Result.SUCCEEDED
    assert setting.recipe.live == b"new data"


async def test_a_restore_cannot_be_cancelled(setting: Setting) -> None:
    await setting.stage("t-1")
    go_on = asyncio.Event()
    setting.recipe.at["restore halfway"] = go_on.wait
    states = setting.transfers.restore("t-1")
    await anext(states)

    with pytest.raises(TransferInProgressError, match="too far"):
        await setting.transfers.cancel("t-1")

    go_on.set()
    assert [state async for state in states][-1].result is Result.SUCCEEDED


async def test_what_an_earlier_import_kept_is_dropped_once_the_next_is_restored(setting: Setting) -> None:
    await setting.run_import("t-1", b"first")
    await setting.stage("t-2", b"second")
    kept_while_staged = setting.state("t-1").kept_until

    await setting.restore("t-2")

    assert kept_while_staged is not None
    assert setting.state("t-1").kept_until is None
    assert setting.journal_lines == 1
    await setting.undo()
    assert setting.recipe.live == b"first"


async def test_a_failed_import_leaves_what_an_earlier_one_kept(setting: Setting) -> None:
    await setting.run_import("t-1", b"first")
    with pytest.raises(ArchiveWrongKindError):
        await setting.stage("t-2", b"BAD")

    await setting.undo()

    assert setting.recipe.live == b"old data"


# Undo and discard


async def test_undo_brings_the_previous_data_back(setting: Setting) -> None:
    await setting.run_import("t-1")

    state = await setting.undo()

    assert (state.transfer_id, state.undone, state.kept_until, state.result) == ("t-1", True, None, Result.SUCCEEDED)
    assert is_untouched(setting)


async def test_what_is_to_be_known_of_the_data_in_place_is_told_with_the_end_and_later(setting: Setting) -> None:
    setting.recipe.told = "One file is there by name only."
    imported = await setting.run_import("t-1")
    setting.recipe.told = "Two files are."

    undone = await setting.undo("t-1")
    setting.restart()
    await setting.transfers.housekeeping.recover()
    told_later = await setting.undo("t-1")

    assert (imported.phase, imported.to_proto().progress.note) == (Phase.DONE, "One file is there by name only.")
    assert [state.note for state in (undone, told_later)] == ["Two files are."] * 2


async def test_undoing_again_answers_the_state_even_after_a_restart(setting: Setting) -> None:
    await setting.run_import("t-1")
    first = await setting.undo("t-1")
    setting.restart()
    await setting.transfers.housekeeping.recover()

    second = await setting.undo("t-1")

    assert (second.undone, second.ended_at) == (True, first.ended_at)


@pytest.mark.parametrize("transfer_id", ["", "t-1", "never"])
async def test_there_is_nothing_to_undo_after_confirming(setting: Setting, transfer_id: str) -> None:
    await setting.run_import("t-1")
    await setting.transfers.discard("t-1")

    with pytest.raises(NothingToUndoError) as refused:
        await setting.undo(transfer_id)

    assert refused.value.text.endswith(" Nothing was changed.")
    assert setting.recipe.live == b"new data"


async def test_an_undo_that_fails_can_be_repeated(setting: Setting) -> None:
    await setting.run_import("t-1")
    setting.recipe.at["undo begun"] = raiser(AppBusyError("Still busy."))
    with pytest.raises(AppBusyError, match=r"^Still busy\. Nothing was changed\.$"):
        await setting.undo()
    waiting_state = setting.state("t-1")
    del setting.recipe.at["undo begun"]

    await setting.undo()

    assert (waiting_state.phase, waiting_state.result, waiting_state.undone) == (Phase.DONE, Result.SUCCEEDED, False)
    assert is_untouched(setting)


@pytest.mark.parametrize(("step", "undone"), [("undo begun", False), ("undo swapped", True)])
async def test_a_fault_in_an_undo_is_brought_to_one_side(setting: Setting, step: str, undone: bool) -> None:
    await setting.run_import("t-1")
    setting.recipe.at[step] = raiser(RuntimeError("secret detail"))

    if undone:
        assert (await setting.undo()).undone
    else:
        with pytest.raises(InternalError):
            await setting.undo()

    assert setting.recipe.live == (b"old data" if undone else b"new data")
    assert setting.state("t-1").undone is undone
    assert setting.journal_lines == (0 if undone else 1)


async def test_an_undo_goes_on_when_its_caller_leaves(setting: Setting) -> None:
    await setting.run_import("t-1")
    go_on = asyncio.Event()
    setting.recipe.at["undo begun"] = go_on.wait
    async with aclosing(setting.transfers.undo("")) as states:
        await anext(states)

    go_on.set()
    async with aclosing(setting.transfers.watch("t-1")) as states:
        last = [state async for state in states][-1]

    assert last.undone
    assert is_untouched(setting)


async def test_discard_drops_what_is_staged(setting: Setting) -> None:
    await setting.stage("t-1")

    assert await setting.transfers.discard("t-1")

    assert is_untouched(setting)
    assert setting.state("t-1").result is Result.CANCELLED
    assert not await setting.transfers.discard("t-1")


async def test_discard_without_an_id_confirms_the_latest_import(setting: Setting) -> None:
    await setting.run_import("t-1")

    assert await setting.transfers.discard("")

    state = setting.state("t-1")
    assert (state.result, state.kept_until, setting.recipe.beside) == (Result.SUCCEEDED, None, set())
    assert not await setting.transfers.discard("")


@pytest.mark.parametrize("newer", ["is staged", "left something that waits to be dropped"])
async def test_discard_without_an_id_confirms_an_import_though_a_newer_one_holds_something(
    setting: Setting, newer: str
) -> None:
    await setting.run_import("t-1", b"first")
    if newer == "is staged":
        await setting.stage("t-2", b"second")
    else:
        setting.recipe.at["discard"] = raiser(AppUnavailableError("Down."))
        with pytest.raises(ArchiveWrongKindError):
            await setting.stage("t-2", b"BAD")
        del setting.recipe.at["discard"]

    assert await setting.transfers.discard("")

    assert setting.state("t-1").kept_until is None
    assert setting.recipe.beside == {"staged"}


async def test_a_discard_that_fails_is_told_and_tried_again(setting: Setting) -> None:
    await setting.run_import("t-1")
    setting.recipe.at["discard"] = raiser(AppUnavailableError("Down."))
    with pytest.raises(AppUnavailableError) as told:
        await setting.transfers.discard("t-1")
    del setting.recipe.at["discard"]

    assert told.value.text == (
        "Down. What import t-1 held is given up all the same and cannot be brought back; the agent goes on trying to "
        "remove it."
    )
    assert await setting.transfers.discard("t-1")

    assert setting.recipe.beside == set()


REQUESTS: dict[str, Callable[[Setting], Awaitable[object]]] = {
    "export": lambda setting: anext(setting.transfers.export("next", "", {})),
    "stage": lambda setting: setting.stage("next"),
    "restore": lambda setting: setting.restore("staged"),
    "undo": lambda setting: setting.undo("kept"),
    "discard": lambda setting: setting.transfers.discard("staged"),
}


@pytest.mark.parametrize("request_name", REQUESTS)
async def test_everything_is_refused_while_a_transfer_runs(setting: Setting, request_name: str) -> None:
    await setting.run_import("kept")
    await setting.stage("staged")
    setting.recipe.at["export begun"] = asyncio.Event().wait
    running = asyncio.ensure_future(anext(setting.transfers.export("running", "", {})))
    await asyncio.sleep(0)

    with pytest.raises(TransferInProgressError, match="running") as refused:
        await REQUESTS[request_name](setting)

    assert ("Nothing was changed." in refused.value.text) is (request_name != "export")
    assert refused.value.next_step

    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


# Expiry


async def test_what_is_staged_expires_after_an_hour(setting: Setting) -> None:
    await setting.stage("t-1")

    setting.clock.advance(3599)
    await setting.transfers.housekeeping.tidy()
    before = setting.recipe.beside
    setting.clock.advance(2)
    await setting.transfers.housekeeping.tidy()

    assert before == {"staged"}
    assert is_untouched(setting)
    with pytest.raises(TransferNotFoundError):
        await setting.restore("t-1")


async def test_previous_data_expires_and_the_import_stays_done(setting: Setting) -> None:
    await setting.run_import("t-1")

    setting.clock.advance(72 * 3600 + 1)
    await setting.transfers.housekeeping.tidy()

    assert setting.recipe.beside == set()
    assert setting.recipe.live == b"new data"
    assert (setting.state("t-1").result, setting.state("t-1").kept_until) == (Result.SUCCEEDED, None)


async def test_housekeeping_comes_round_by_itself_and_leaves_a_running_transfer_alone(setting: Setting) -> None:
    await setting.stage("t-1")
    rounds = asyncio.create_task(setting.transfers.housekeeping.run())
    await asyncio.sleep(0)
    async with aclosing(setting.transfers.export("t-2", "", {})) as export:
        await anext(export)
        setting.clock.advance(4000)
        for _ in range(10):
            await asyncio.sleep(0)
        while_running = setting.recipe.beside

    setting.clock.advance(4000)
    for _ in range(10):
        await asyncio.sleep(0)
    rounds.cancel()

    assert while_running == {"staged"}
    assert setting.recipe.beside == set()


# Limits and stopping


async def test_a_full_disk_before_the_swap_leaves_the_import_staged(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    await setting.stage("t-1")

    def full(*given: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("agent.journal.write_atomically", full)
    with pytest.raises(NoSpaceError):
        await setting.restore("t-1")
    monkeypatch.undo()

    assert setting.recipe.live == b"old data"
    assert (await setting.restore("t-1")).result is Result.SUCCEEDED


async def test_a_full_disk_after_the_swap_does_not_take_it_back(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    await setting.stage("t-1")

    def full(*given: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    setting.recipe.at["restore swapped"] = lambda: monkeypatch.setattr("agent.journal.write_atomically", full)
    state = await setting.restore("t-1")
    monkeypatch.undo()
    setting.restart()
    await setting.transfers.housekeeping.recover()

    assert state.result is Result.SUCCEEDED
    assert setting.recipe.live == b"new data"
    assert (await setting.undo()).undone


async def test_closing_ends_a_stage_with_a_reason_and_takes_nothing_new(setting: Setting) -> None:
    states = setting.transfers.stage("t-1", waiting(*frame_list(b"new", end=False)), {}, dry_run=False)
    await anext(states)

    assert await setting.transfers.close(grace_seconds=60)

    with pytest.raises(AgentUnavailableError):
        async for _ in states:
            pass
    with pytest.raises(AgentUnavailableError):
        await setting.stage("t-2")
    assert is_untouched(setting)


async def test_closing_waits_for_a_restore(setting: Setting) -> None:
    await setting.stage("t-1")
    go_on = asyncio.Event()
    setting.recipe.at["restore halfway"] = go_on.wait
    states = setting.transfers.restore("t-1")
    await anext(states)

    closing = asyncio.create_task(setting.transfers.close(grace_seconds=60))
    await asyncio.sleep(0)
    go_on.set()

    assert await closing
    assert [state async for state in states][-1].result is Result.SUCCEEDED


async def test_closing_says_when_a_restore_outlasts_the_grace_period(setting: Setting) -> None:
    await setting.stage("t-1")
    go_on = asyncio.Event()
    setting.recipe.at["restore halfway"] = go_on.wait
    states = setting.transfers.restore("t-1")
    await anext(states)

    assert not await setting.transfers.close(grace_seconds=0.01)

    go_on.set()
    assert [state async for state in states][-1].result is Result.SUCCEEDED


async def test_closing_ends_the_watching_of_what_waits(setting: Setting) -> None:
    await setting.stage("t-1")
    states = setting.transfers.watch("t-1")
    await anext(states)

    await setting.transfers.close(grace_seconds=1)

    with pytest.raises(AgentUnavailableError):
        async for _ in states:
            pass
