"""How long a child may take for the database of an upload before it is ended: a little more than it gives itself.

Apart from what the child says of its time (`bounds`), so that a child starts without asyncio.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agent.engines.sqlite.bounds import took_too_long

_END_SECONDS = 3.0


@asynccontextmanager
async def bounded(name: str, seconds: float, *, engine: str = "SQLite") -> AsyncIterator[None]:
    """For what a child does with a database; LimitExceededError when it does not end by itself in time."""
    try:
        async with asyncio.timeout(seconds + _END_SECONDS):
            yield
    except TimeoutError:
        raise took_too_long(name, seconds, engine=engine) from None
