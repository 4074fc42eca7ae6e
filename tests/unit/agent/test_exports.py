from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from agent.states import Phase, Result
from common.encoded_chunks import encoded_chunk
from common.errors import (
    CancelledError,
    FormatNotSupportedError,
    InternalError,
    InvalidRequestError,
    ServiceError,
    SourceUnreadableError,
    TransferInProgressError,
)
from mathison.data.v1 import transfer_pb2 as wire
from tests.unit.agent.conftest import RULES, Setting


async def exported(setting: Setting, transfer_id: str, format_name: str = "") -> AsyncGenerator[wire.Frame, None]:
    """The frames as a caller decodes them."""
    async with aclosing(setting.transfers.export(transfer_id, format_name, {})) as frames:
        async for frame in frames:
            yield wire.Frame.FromString(frame) if isinstance(frame, bytes) else frame


async def export(
    setting: Setting, transfer_id: str = "t-1", format_name: str = "", *, seen: list[wire.Frame] | None = None
) -> list[wire.Frame]:
    """All frames; also in `seen`, for an export that raises."""
    seen = [] if seen is None else seen
    async for frame in exported(setting, transfer_id, format_name):
        seen.append(frame)
    return seen


async def test_an_export_is_a_header_the_data_and_an_end_that_agrees(setting: Setting) -> None:
    setting.recipe.chunk_bytes = 3

    header, *chunks, end = await export(setting)

    assert b"".join(frame.chunk for frame in chunks) == b"old data"
    assert (end.end.size_bytes, end.end.sha256) == (8, hashlib.sha256(b"old data").hexdigest())
    assert dict(end.end.counts) == {"files": 1}
    assert header.header.file_name == "shop-db-2026-11-23.bin"
    assert (header.header.recipe, header.header.format, header.header.app_id) == ("fake", "plain", "shop.db")
    assert (header.header.made_by, header.header.media_type) == ("test", "application/octet-stream")


async def test_its_state_is_remembered_with_size_and_digest(setting: Setting) -> None:
    await export(setting)

    state = setting.state("t-1")
    assert (state.phase, state.result, state.read_bytes, state.sent_bytes) == (Phase.DONE, Result.SUCCEEDED, 8, 8)
    assert state.receipt is not None
    assert state.receipt.size_bytes == 8


@pytest.mark.parametrize("size", [1, 127, 128, 16383, 16384, 1 << 20, (1 << 21) - 1, 1 << 21])
def test_a_chunk_is_encoded_as_its_message_would_be(size: int) -> None:
    chunk = b"\xff" * size

    encoded, content = encoded_chunk(chunk)

    assert encoded == wire.Frame(chunk=chunk).SerializeToString()
    assert bytes(content) == chunk


async def test_chunks_over_the_limit_are_divided_and_empty_ones_left_out(setting: Setting) -> None:
    (setting.directory / "app" / "live").write_bytes(bytes(5 << 20))
    setting.recipe.chunk_bytes = 5 << 20

    _, *chunks, end = await export(setting)

    assert [len(frame.chunk) >> 20 for frame in chunks if frame.HasField("chunk")] == [2, 2, 1]
    assert end.end.size_bytes == 5 << 20


async def test_the_format_is_chosen_by_name(setting: Setting) -> None:
    header, *_ = await export(setting, format_name="spare")

    assert header.header.format == "spare"


async def test_an_unknown_format_is_refused_before_anything_starts(setting: Setting) -> None:
    with pytest.raises(FormatNotSupportedError, match="'sql'"):
        await export(setting, format_name="sql")

    assert setting.transfers.list() == []


@pytest.mark.parametrize("transfer_id", ["", "a" * 65, "a b", "../x", "ä", "a\n"])
async def test_a_malformed_id_is_refused(setting: Setting, transfer_id: str) -> None:
    with pytest.raises(InvalidRequestError):
        await export(setting, transfer_id)


async def test_repeating_an_ended_export_makes_a_new_archive(setting: Setting) -> None:
    await export(setting)
    (setting.directory / "app" / "live").write_bytes(b"newer")

    frames = await export(setting)

    assert frames[-1].end.size_bytes == 5
    assert len(setting.transfers.list()) == 1


@pytest.mark.parametrize("step", ["export begun", "export chunk", "export ended"])
@pytest.mark.parametrize(
    ("raised", "answered"),
    [
        pytest.param(SourceUnreadableError("No."), SourceUnreadableError, id="a service error passes"),
        pytest.param(RuntimeError("secret detail"), InternalError, id="a fault is hidden"),
    ],
)
async def test_an_export_that_fails_anywhere_has_no_end_frame(
    setting: Setting, step: str, raised: Exception, answered: type[ServiceError]
) -> None:
    def fail() -> None:
        raise raised

    setting.recipe.at[step] = fail
    seen: list[wire.Frame] = []

    with pytest.raises(answered) as caught:
        await export(setting, seen=seen)

    assert not any(frame.HasField("end") for frame in seen)
    assert "secret" not in caught.value.text
    assert setting.state("t-1").result is Result.FAILED
    assert setting.recipe.running_exports == 0


async def test_a_caller_that_leaves_ends_the_dump_before_the_next_transfer(setting: Setting) -> None:
    setting.recipe.chunk_bytes = 1
    async with aclosing(exported(setting, "t-1")) as frames:
        await anext(frames)
        await anext(frames)

    assert setting.recipe.running_exports == 0
    assert setting.state("t-1").result is Result.CANCELLED
    assert (await export(setting, "t-2"))[-1].HasField("end")


async def test_the_end_frame_counts_only_once_it_was_taken(setting: Setting) -> None:
    async with aclosing(exported(setting, "t-1")) as frames:
        async for frame in frames:
            if frame.HasField("end"):
                break

    assert setting.state("t-1").result is Result.CANCELLED


async def test_cancel_ends_an_export_and_its_caller_hears_of_it(setting: Setting) -> None:
    setting.recipe.at["export chunk"] = asyncio.Event().wait
    frames = exported(setting, "t-1")
    await anext(frames)

    state = await setting.transfers.cancel("t-1")

    assert state.result is Result.CANCELLED
    with pytest.raises(CancelledError):
        async for _ in frames:
            pass


async def test_a_second_transfer_is_refused_and_told_the_id_of_the_first(setting: Setting) -> None:
    async with aclosing(exported(setting, "first")) as frames:
        await anext(frames)

        with pytest.raises(TransferInProgressError, match="first"):
            await export(setting, "second")
        with pytest.raises(TransferInProgressError, match="first"):
            await export(setting, "first")

    assert [state.transfer_id for state in setting.transfers.list()] == ["first"]


async def test_a_slow_caller_holds_the_recipe_up(setting: Setting) -> None:
    setting.recipe.chunk_bytes = 1
    produced = 0

    def count() -> None:
        nonlocal produced
        produced += 1

    setting.recipe.at["export chunk"] = count
    async with aclosing(exported(setting, "t-1")) as frames:
        await anext(frames)
        await anext(frames)
        for _ in range(200):
            await asyncio.sleep(0)

    assert produced <= 2


async def test_a_caller_that_takes_nothing_loses_its_transfer(setting: Setting) -> None:
    setting.restart(rules=dataclasses.replace(RULES, idle_seconds=0.01))
    async with aclosing(exported(setting, "t-1")) as frames:
        await anext(frames)
        async with aclosing(setting.transfers.watch("t-1")) as states:
            last = [state async for state in states][-1]

    assert last.failure is not None
    assert "took nothing" in last.failure.message


async def test_progress_comes_in_silences_too(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.exports.GAP_SECONDS", 0.001)
    setting.recipe.chunk_bytes = 4
    setting.recipe.at["export chunk"] = asyncio.Event().wait
    async with aclosing(exported(setting, "t-1")) as frames:
        async for frame in frames:
            if frame.HasField("progress") and frame.progress.read_bytes == 4:
                break

    assert frame.progress.phase == wire.PHASE_TRANSFERRING
    assert frame.progress.total_bytes == 8


async def test_nothing_comes_after_the_end_frame(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.exports.GAP_SECONDS", -1)
    async with aclosing(exported(setting, "t-1")) as frames:
        kinds = [frame.WhichOneof("content") async for frame in frames]

    assert "progress" in kinds
    assert (kinds[0], kinds[-1]) == ("header", "end")


async def test_the_last_hundred_are_remembered_across_a_restart(setting: Setting) -> None:
    for number in range(105):
        await export(setting, f"t-{number}")

    setting.restart()
    await setting.transfers.housekeeping.recover()

    assert [state.transfer_id for state in setting.transfers.list()] == [f"t-{n}" for n in range(104, 4, -1)]
