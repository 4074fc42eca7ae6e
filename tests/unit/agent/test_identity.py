from __future__ import annotations

import asyncio
import datetime as dt

from agent.identity import IdentityKeeper, Outcome
from tests.fakes.clock import FakeClock


class Attempts:
    """Enrolment with the outcomes that a test gives it."""

    def __init__(self, *outcomes: Outcome) -> None:
        self._outcomes = list(outcomes)
        self.count = 0

    async def __call__(self) -> Outcome:
        self.count += 1
        return self._outcomes.pop(0)


async def pass_time(clock: FakeClock, seconds: float, *, step: float = 1.0) -> None:
    """Move the clock in small steps, letting everybody run after each."""
    for _ in range(int(seconds / step)):
        clock.advance(step)
        for _ in range(5):
            await asyncio.sleep(0)


async def test_enrolment_is_tried_until_it_succeeds_with_growing_pauses() -> None:
    clock = FakeClock()
    refused = Outcome(obstacle="No.")
    attempts = Attempts(*[refused] * 6, Outcome(renew_at=clock.now() + dt.timedelta(days=1)))
    providing = asyncio.create_task(IdentityKeeper(attempts, clock).provide())
    await asyncio.sleep(0)

    counts = []
    for seconds in (1, 2, 5, 10, 30):
        await pass_time(clock, seconds)
        counts.append(attempts.count)
    was_done = providing.done()
    await pass_time(clock, 30)

    assert counts == [2, 3, 4, 5, 6]
    assert not was_done
    assert providing.done()


async def test_a_certificate_is_renewed_when_it_is_time_and_not_before() -> None:
    clock = FakeClock()
    attempts = Attempts(
        Outcome(renew_at=clock.now() + dt.timedelta(hours=1)), Outcome(renew_at=clock.now() + dt.timedelta(days=9))
    )
    keeper = IdentityKeeper(attempts, clock)
    await keeper.provide()
    running = asyncio.create_task(keeper.run())
    await asyncio.sleep(0)

    await pass_time(clock, 3540, step=60)
    before = attempts.count
    await pass_time(clock, 120, step=60)
    running.cancel()

    assert (before, attempts.count) == (1, 2)


async def test_a_certificate_that_is_always_due_does_not_spin() -> None:
    clock = FakeClock()
    attempts = Attempts(*[Outcome(renew_at=clock.now())] * 50)
    keeper = IdentityKeeper(attempts, clock)
    await keeper.provide()
    running = asyncio.create_task(keeper.run())

    await pass_time(clock, 10)
    running.cancel()

    assert attempts.count <= 12
