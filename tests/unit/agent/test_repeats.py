"""An id that is used again: the same transfer is told as it stands, any other is refused and changes nothing."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import pytest

from agent.states import Phase, Result, TransferState
from common.errors import (
    ArchiveWrongKindError,
    DigestMismatchError,
    InvalidRequestError,
    LimitExceededError,
    ServiceError,
    TransferInProgressError,
    TransferNotFoundError,
    UploadIncompleteError,
)
from mathison.data.v1 import transfer_pb2 as wire
from tests.fixtures.uploads import frame_list, frames
from tests.unit.agent.conftest import RULES, Setting
from tests.unit.agent.test_imports import waiting


async def stage(
    setting: Setting,
    *upload: wire.Frame,
    options: Mapping[str, str] | None = None,
    dry_run: bool = False,
    transfer_id: str = "t-1",
) -> TransferState:
    """Stage under an id, whatever was done under it before; the last state. The stream does not end by itself."""
    states = setting.transfers.stage(transfer_id, waiting(*upload), options or {}, dry_run=dry_run)
    return [state async for state in states][-1]


async def export(
    setting: Setting, transfer_id: str = "t-1", format_name: str = "", options: Mapping[str, str] | None = None
) -> bytes:
    frames = [frame async for frame in setting.transfers.export(transfer_id, format_name, options or {})]
    return b"".join(wire.Frame.FromString(frame).chunk for frame in frames if isinstance(frame, bytes))


async def staged(setting: Setting) -> None:
    await setting.stage("t-1")


async def imported(setting: Setting) -> None:
    await setting.run_import("t-1")


async def imported_and_confirmed(setting: Setting) -> None:
    await setting.run_import("t-1")
    assert await setting.transfers.discard("t-1")


async def imported_before_a_restart(setting: Setting) -> None:
    await setting.run_import("t-1")
    setting.restart()
    await setting.transfers.housekeeping.recover()


async def confirmed_before_a_restart(setting: Setting) -> None:
    await imported_and_confirmed(setting)
    setting.restart()
    await setting.transfers.housekeeping.recover()


async def run_dry(setting: Setting) -> None:
    await setting.stage("t-1", dry_run=True)


IMPORTED = [imported, imported_and_confirmed, imported_before_a_restart, confirmed_before_a_restart]
Past = Callable[[Setting], Awaitable[None]]


@pytest.mark.parametrize("past", [staged, *IMPORTED])
async def test_the_same_import_again_is_answered_with_its_state(setting: Setting, past: Past) -> None:
    await past(setting)
    before = setting.state("t-1")

    again = await stage(setting, *frame_list(b"new", b" data"))

    assert again == before


async def test_the_same_dry_run_again_is_answered_with_its_state(setting: Setting) -> None:
    await run_dry(setting)

    again = await stage(setting, *frame_list(b"new data"), dry_run=True)

    assert (again.phase, again.result) == (Phase.STAGED, Result.SUCCEEDED)
    assert setting.recipe.live == b"old data"


@pytest.mark.parametrize("past", [staged, *IMPORTED, run_dry])
async def test_another_file_under_the_id_is_refused_and_changes_nothing(setting: Setting, past: Past) -> None:
    await past(setting)
    content, before = setting.recipe.live, setting.state("t-1")

    with pytest.raises(InvalidRequestError, match=r"t-1 was used before, for another file.*[Nn]othing was changed"):
        await stage(setting, *frame_list(b"new dAta"), dry_run=past is run_dry)

    assert setting.recipe.live == content
    assert setting.state("t-1") == before


@pytest.mark.parametrize(
    ("upload", "expected"),
    [
        pytest.param(frame_list(b"new data", sha256="00" * 32), DigestMismatchError, id="another digest"),
        pytest.param(frame_list(b"x" * 600, b"x" * 600), LimitExceededError, id="over the limit"),
        pytest.param([wire.Frame(chunk=b"x")], InvalidRequestError, id="no header"),
    ],
)
async def test_an_upload_that_is_not_right_is_no_repetition(
    setting: Setting, upload: list[wire.Frame], expected: type[ServiceError]
) -> None:
    await imported(setting)

    with pytest.raises(expected):
        await stage(setting, *upload)


async def test_an_upload_that_is_cut_is_no_repetition(setting: Setting) -> None:
    await imported(setting)

    with pytest.raises(UploadIncompleteError):
        async for _ in setting.transfers.stage("t-1", frames(b"new data", end=False), {}, dry_run=False):
            pass


async def test_a_repeating_caller_that_falls_silent_is_let_go(setting: Setting) -> None:
    setting.restart(rules=dataclasses.replace(RULES, idle_seconds=0.01))
    await imported(setting)

    with pytest.raises(UploadIncompleteError, match="sent nothing"):
        await stage(setting, *frame_list(b"new data", end=False))


@pytest.mark.parametrize("past", [staged, *IMPORTED])
@pytest.mark.parametrize(("options", "dry_run"), [({"owner": "app"}, False), ({}, True)], ids=["options", "dry run"])
async def test_another_order_under_the_id_is_refused_before_a_frame_is_read(
    setting: Setting, past: Past, options: Mapping[str, str], dry_run: bool
) -> None:
    await past(setting)
    content = setting.recipe.live

    async with asyncio.timeout(5):
        with pytest.raises(InvalidRequestError, match=r"t-1 was used before.*Nothing was changed"):
            await stage(setting, options=options, dry_run=dry_run)

    assert setting.recipe.live == content


async def test_a_dry_runs_id_is_not_taken_for_an_import(setting: Setting) -> None:
    await run_dry(setting)

    with pytest.raises(InvalidRequestError, match="dry run"):
        await stage(setting, *frame_list(b"new data"))


async def test_an_exports_id_is_not_taken_for_an_import_nor_the_other_way_round(setting: Setting) -> None:
    await export(setting, "t-out")
    await setting.run_import("t-in")

    with pytest.raises(InvalidRequestError, match="for an export"):
        await stage(setting, transfer_id="t-out")
    with pytest.raises(InvalidRequestError, match="for an import"):
        await export(setting, "t-in")


@pytest.mark.parametrize(("format_name", "options"), [("spare", {}), ("", {"database": "other"})])
async def test_another_export_under_the_id_is_refused(
    setting: Setting, format_name: str, options: Mapping[str, str]
) -> None:
    await export(setting)

    with pytest.raises(InvalidRequestError, match="t-1 was used before"):
        await export(setting, "t-1", format_name, options)


async def test_the_same_export_again_is_a_new_archive(setting: Setting) -> None:
    await export(setting)
    (setting.directory / "app" / "live").write_bytes(b"written since")

    assert await export(setting, format_name="plain") == b"written since"


@pytest.mark.parametrize("restarts", [False, True])
async def test_an_import_that_was_undone_is_not_said_to_be_there(setting: Setting, restarts: bool) -> None:
    await imported(setting)
    await setting.undo("t-1")
    if restarts:
        setting.restart()
        await setting.transfers.housekeeping.recover()

    with pytest.raises(InvalidRequestError, match=r"undone.*Nothing was changed"):
        await stage(setting, *frame_list(b"new data"))
    with pytest.raises(TransferNotFoundError):
        await setting.restore("t-1")

    assert setting.recipe.live == b"old data"


async def test_an_import_that_a_later_one_replaced_is_not_said_to_be_there(setting: Setting) -> None:
    await imported(setting)
    setting.clock.advance(1)
    await setting.run_import("t-2", b"newer data")

    with pytest.raises(InvalidRequestError, match="t-2"):
        await stage(setting, *frame_list(b"new data"))

    await setting.undo("t-2")
    assert (await stage(setting, *frame_list(b"new data"))).result is Result.SUCCEEDED


async def test_an_import_that_is_undone_while_it_is_repeated_is_not_said_to_be_there(setting: Setting) -> None:
    await imported(setting)
    undone = asyncio.Event()

    async def slow() -> AsyncIterator[wire.Frame]:
        first, *rest = frame_list(b"new data")
        yield first
        await undone.wait()
        for frame in rest:
            yield frame

    repeating = asyncio.create_task(anext(setting.transfers.stage("t-1", slow(), {}, dry_run=False)))
    await asyncio.sleep(0)
    await setting.undo("t-1")
    undone.set()

    with pytest.raises(InvalidRequestError, match="undone"):
        await repeating


async def test_a_staged_import_that_is_gone_when_its_repetition_has_arrived_is_not_said_to_be_there(
    setting: Setting,
) -> None:
    await staged(setting)
    dropped = asyncio.Event()

    async def slow() -> AsyncIterator[wire.Frame]:
        first, *rest = frame_list(b"new data")
        yield first
        await dropped.wait()
        for frame in rest:
            yield frame

    repeating = asyncio.create_task(anext(setting.transfers.stage("t-1", slow(), {}, dry_run=False)))
    await asyncio.sleep(0)
    await setting.transfers.discard("t-1")
    dropped.set()

    with pytest.raises(TransferInProgressError, match="meanwhile"):
        await repeating


async def test_the_id_of_a_failed_import_is_free_for_any_other(setting: Setting) -> None:
    with pytest.raises(ArchiveWrongKindError):
        await setting.stage("t-1", b"BAD")

    assert await export(setting) == b"old data"
    with pytest.raises(InvalidRequestError):
        await setting.stage("t-1")
