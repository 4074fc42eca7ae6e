"""One transfer's state as it changes: told by its recipe, read by any number of watchers.

Telling is cheap, since it happens for every chunk. A watcher sees a new phase or result at once, and what changes all
the time (bytes, sentences) at most once in `gap_seconds`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Any

import msgspec

from agent.clock import Clock
from agent.recipes.base import Step
from agent.states import Phase, TransferState

GAP_SECONDS = 0.2
"""Between two events or progress frames: five a second look smooth to a person and cost nothing."""
RATE_SECONDS = 5.0
"""The rate is a mean over so much of the past."""


class Tracker:
    """Implements recipes.base.Progress."""

    def __init__(self, state: TransferState, clock: Clock) -> None:
        self._state = state
        self._clock = clock
        self._read = 0
        self._sent = 0
        self._total = 0
        self._samples: deque[tuple[float, int]] = deque([(clock.monotonic(), 0)])
        self._watchers: set[_Watcher] = set()

    def step(self, step: Step, note: str = "") -> None:
        """Enter a step; see recipes.base.Progress."""
        self.update(phase=Phase(step.value), note=note)

    def read(self, size_bytes: int) -> None:
        """Count bytes read from the app, or received."""
        self._read += size_bytes
        self._flowed()

    def sent(self, size_bytes: int) -> None:
        """Count bytes handed to the caller."""
        self._sent += size_bytes
        self._flowed()

    def expect(self, total_bytes: int) -> None:
        """Estimate what `read` will count."""
        self._total = total_bytes
        self.wake()

    def update(self, **changes: Any) -> None:
        """Change other fields of the state."""
        before = self._state
        self._state = msgspec.structs.replace(before, **changes)
        self.wake(at_once=self._state.phase is not before.phase or self._state.result is not before.result)

    def wake(self, *, at_once: bool = False) -> None:
        """Have watchers look again, because the state or what `is_over` says has changed."""
        for watcher in self._watchers:
            watcher.changed.set()
            if at_once:
                watcher.urgent.set()

    @property
    def phase(self) -> Phase:
        return self._state.phase

    @property
    def state(self) -> TransferState:
        """A snapshot."""
        return msgspec.structs.replace(
            self._state,
            read_bytes=self._read or self._state.read_bytes,
            sent_bytes=self._sent or self._state.sent_bytes,
            total_bytes=self._total or self._state.total_bytes,
            rate_bytes_per_second=0 if self._state.phase is Phase.DONE else self._rate(),
        )

    async def watch(
        self, is_over: Callable[[], bool], *, gap_seconds: float = GAP_SECONDS
    ) -> AsyncGenerator[TransferState, None]:
        """The state now and after each change, until it is over; the state at that moment is the last.

        Args:
            is_over: looked at when the state changes and when `wake` is called.
        """
        watcher = _Watcher()
        self._watchers.add(watcher)
        try:
            while not is_over():
                watcher.changed.clear()
                watcher.urgent.clear()
                yield self.state
                await watcher.changed.wait()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(watcher.urgent.wait(), gap_seconds)
            yield self.state
        finally:
            self._watchers.discard(watcher)

    def _flowed(self) -> None:
        moment = self._clock.monotonic()
        if moment - self._samples[-1][0] >= GAP_SECONDS:
            self._samples.append((moment, self._flow))
        self.wake()

    @property
    def _flow(self) -> int:
        """What the rate is of: a recipe need not count what it reads."""
        return self._read or self._sent

    def _rate(self) -> int:
        moment = self._clock.monotonic()
        while len(self._samples) > 1 and moment - self._samples[1][0] >= RATE_SECONDS:
            self._samples.popleft()
        start, before = self._samples[0]
        return int((self._flow - before) / (moment - start)) if moment - start >= GAP_SECONDS else 0


class _Watcher:
    """Compared and hashed by identity."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self.urgent = asyncio.Event()
