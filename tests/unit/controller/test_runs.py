"""Work that may outlive its caller."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

import pytest

from common.errors import ToolFailedError
from controller.runs import Run, Runs
from mathison.data.v1.transfer_pb2 import TransferState


class Work:
    """Publishes one state, waits to be let go, publishes another."""

    def __init__(self, *, passes_return: bool = False, error: Exception | None = None) -> None:
        self.gate = asyncio.Event()
        self.ended_as = ""
        self._passes_return = passes_return
        self._error = error

    async def __call__(self, run: Run) -> None:
        try:
            if self._passes_return:
                run.pass_return()
            run.publish(TransferState(transfer_id="first"))
            await self.gate.wait()
            if self._error is not None:
                raise self._error
            run.publish(TransferState(transfer_id="last"))
            self.ended_as = "finished"
        except asyncio.CancelledError:
            self.ended_as = "cancelled"
            raise


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_states_are_passed_on_in_order() -> None:
    work = Work()
    work.gate.set()

    states = [state.transfer_id async for state in Runs().follow(work, name="work")]

    assert states == ["first", "last"]


async def test_an_error_comes_after_the_states() -> None:
    work = Work(error=ToolFailedError("broken"))
    work.gate.set()
    states: list[str] = []

    async def follow() -> None:
        async for state in Runs().follow(work, name="work"):
            states.append(state.transfer_id)

    with pytest.raises(ToolFailedError):
        await follow()
    assert states == ["first"]


async def test_leaving_before_the_point_of_no_return_ends_the_work() -> None:
    work = Work()

    async with aclosing(Runs().follow(work, name="work")) as states:
        await anext(states)

    assert work.ended_as == "cancelled"


async def test_leaving_after_the_point_of_no_return_does_not() -> None:
    runs, work = Runs(), Work(passes_return=True)

    async with aclosing(runs.follow(work, name="work")) as states:
        await anext(states)

    assert work.ended_as == ""
    work.gate.set()
    await runs.close(grace_seconds=5)
    assert work.ended_as == "finished"


async def test_an_unwatched_error_is_no_unhandled_one() -> None:
    runs, work = Runs(), Work(passes_return=True, error=ToolFailedError("broken"))
    async with aclosing(runs.follow(work, name="work")) as states:
        await anext(states)

    work.gate.set()

    await runs.close(grace_seconds=5)


async def test_what_does_not_end_in_time_is_cancelled_at_the_close() -> None:
    runs, work = Runs(), Work(passes_return=True)
    async with aclosing(runs.follow(work, name="work")) as states:
        await anext(states)

    await runs.close(grace_seconds=0)

    assert work.ended_as == "cancelled"
