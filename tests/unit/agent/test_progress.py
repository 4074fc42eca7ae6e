from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from agent.progress import Tracker
from agent.recipes.base import Step
from agent.states import Kind, Phase, Result, TransferState
from tests.fakes.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def tracker(clock: FakeClock) -> Tracker:
    return Tracker(TransferState(transfer_id="t-1", kind=Kind.EXPORT, started_at=clock.now()), clock)


async def is_waiting(events: AsyncGenerator[TransferState, None]) -> bool:
    """Whether nothing comes although the loop had every chance; the generator is given up."""
    following = asyncio.ensure_future(anext(events))
    for _ in range(20):
        await asyncio.sleep(0)
    waits = not following.done()
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    return waits


def test_the_rate_is_the_mean_of_the_last_five_seconds(tracker: Tracker, clock: FakeClock) -> None:
    for size_bytes in [1_000_000] * 10 + [100] * 6:
        clock.advance(1)
        tracker.read(size_bytes)

    assert tracker.state.rate_bytes_per_second == 100


def test_the_rate_falls_to_zero_when_nothing_flows(tracker: Tracker, clock: FakeClock) -> None:
    clock.advance(1)
    tracker.read(1_000_000)

    clock.advance(60)

    assert tracker.state.rate_bytes_per_second == 0


def test_what_was_sent_stands_in_for_a_recipe_that_does_not_count(tracker: Tracker, clock: FakeClock) -> None:
    clock.advance(1)
    tracker.sent(500)

    assert tracker.state.rate_bytes_per_second == 500


async def test_a_watcher_sees_the_state_at_once_and_a_new_phase_without_delay(tracker: Tracker) -> None:
    async with aclosing(tracker.watch(lambda: False, gap_seconds=3600)) as events:
        first = await anext(events)
        tracker.step(Step.TRANSFERRING)
        second = await anext(events)

    assert (first.phase, second.phase) == (Phase.PREPARING, Phase.TRANSFERRING)


async def test_bytes_are_told_once_in_a_while_and_not_for_every_chunk(tracker: Tracker) -> None:
    async with aclosing(tracker.watch(lambda: False, gap_seconds=3600)) as events:
        await anext(events)
        tracker.read(1)
        tracker.read(1)

        assert await is_waiting(events)


async def test_bytes_are_told_together_after_the_gap(tracker: Tracker) -> None:
    async with aclosing(tracker.watch(lambda: False, gap_seconds=0)) as events:
        await anext(events)
        tracker.read(1)
        tracker.read(2)

        assert (await anext(events)).read_bytes == 3


async def test_the_last_state_is_always_told(tracker: Tracker) -> None:
    over = False

    async def run() -> None:
        nonlocal over
        for _ in range(100):
            tracker.read(1)
            await asyncio.sleep(0)
        over = True
        tracker.update(phase=Phase.DONE, result=Result.SUCCEEDED)

    running = asyncio.create_task(run())
    events = [event async for event in tracker.watch(lambda: over, gap_seconds=3600)]
    await running

    assert (events[-1].result, events[-1].read_bytes) == (Result.SUCCEEDED, 100)
    assert len(events) < 5
