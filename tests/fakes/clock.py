"""A clock that stands still until a test moves it."""

from __future__ import annotations

import asyncio
import datetime as dt


class FakeClock:
    """Implements agent.clock.Clock; who sleeps wakes when the test has moved the time far enough."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._start = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> dt.datetime:
        return self._start + dt.timedelta(seconds=self._seconds)

    def monotonic(self) -> float:
        return self._seconds

    def set_back(self, seconds: float) -> None:
        """As a person or a time server does; nobody's sleep is the longer for it."""
        self._start -= dt.timedelta(seconds=seconds)

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.get_running_loop().create_future()
        self._sleepers.append((self._seconds + seconds, woken))
        await woken

    def advance(self, seconds: float) -> None:
        """Move the time on and wake whoever slept until then."""
        self._seconds += seconds
        due = [sleeper for sleeper in self._sleepers if sleeper[0] <= self._seconds]
        for sleeper in due:
            self._sleepers.remove(sleeper)
            if not sleeper[1].done():
                sleeper[1].set_result(None)
