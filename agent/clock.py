"""Time as a parameter: what expires, waits or measures a rate asks a clock, so that no test has to wait."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from typing import Protocol


class Clock(Protocol):
    """Where the time comes from."""

    def now(self) -> dt.datetime:
        """The moment, aware and in UTC; jumps when the machine's clock is set."""

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back."""

    async def sleep(self, seconds: float) -> None:
        """As asyncio.sleep."""


class SystemClock:
    """The machine's."""

    def now(self) -> dt.datetime:
        return dt.datetime.now(dt.UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
