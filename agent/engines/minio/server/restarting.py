"""MinIO told to restart itself, and waited for: it keeps users and the settings of buckets in memory.

It replaces its own process (execve), so it stays the same for whoever supervises it. It says that it is alive and ready
before it serves, and the old process answers on for a moment: it has restarted when its connections broke or it is
younger than it should be, and it serves when S3 answers.

It goes on to start while it serves: it reads the settings of all buckets that it has listed, ten at a time, and makes
the directory of each anew that has gone meanwhile. Its health call for clusters says when that is over; releases before
July 2024 do not, but hold S3 calls for so long.
"""

from __future__ import annotations

import asyncio
import time

from agent.engines.minio.server.client import Client, NotReadyError, RootDeniedError
from agent.engines.minio.server.facts import look
from agent.engines.minio.server.slim_aiohttp import aiohttp
from common.errors import AppUnavailableError, ToolFailedError

_TOLD_AGAIN_SECONDS = 15.0
_POLL_SECONDS = 0.02
_LOADED_SECONDS = 1800.0
"""A thousand buckets take 12 seconds."""
_NOT_LOADED = ("offline", "bucket-metadata-offline")
_CALL_SECONDS = 5.0
_DENIED_SECONDS = 3.0
"""For who judges calls to come up as well."""
_DOUBT_SECONDS = 1.5
"""Uptimes are whole seconds."""


async def restart(client: Client, *, within_seconds: float = 90.0) -> None:
    """Restart the server, which must not be frozen; returns when it serves again.

    Raises:
        AppUnavailableError: it does not answer before that.
        RootDeniedError: what it has been restarted on does not let root in.
        ToolFailedError: it does not come back in time.
    """
    before = await look(client)
    began_at = told_at = time.monotonic()
    await _tell(client)
    is_restarted = False
    denied_at = 0.0
    while time.monotonic() - began_at < within_seconds:
        await asyncio.sleep(_POLL_SECONDS)
        # Taken before the call: an answer that is long on its way is of a younger server than it arrives at.
        elapsed = time.monotonic() - began_at
        try:
            now = await look(client, seconds=_CALL_SECONDS)
            is_restarted |= now.uptime_seconds + _DOUBT_SECONDS < before.uptime_seconds + elapsed
            # On a connection that is open still, the old process may answer once more.
            if is_restarted and now.uptime_seconds <= time.monotonic() - began_at + 1:
                await client.call("GET", path="/", seconds=_CALL_SECONDS)
                return
        except RootDeniedError:
            # The one that was told took the call.
            denied_at = denied_at or time.monotonic()
            if time.monotonic() - denied_at > _DENIED_SECONDS:
                raise
        except AppUnavailableError as failure:
            is_restarted |= isinstance(failure.__cause__, aiohttp.ClientConnectionError | OSError) and not isinstance(
                failure.__cause__, TimeoutError
            )
        except ToolFailedError:
            # It is coming up.
            continue
        if not is_restarted and time.monotonic() - told_at > _TOLD_AGAIN_SECONDS:
            told_at = time.monotonic()
            await _tell(client)
    raise ToolFailedError(
        f"MinIO did not serve again within {within_seconds:.0f} seconds of being told to restart.",
        next_step="See its log.",
    )


async def wait_until_loaded(client: Client) -> None:
    """Until a server that serves has read the settings of its buckets, so that it makes none of them anew from then on.

    Raises:
        AppUnavailableError: it does not answer, or does not come to that.
    """
    ends_at = time.monotonic() + _LOADED_SECONDS
    while True:
        try:
            await client.call("GET", path="/minio/health/cluster/read", seconds=_CALL_SECONDS)
        except NotReadyError as failure:
            if failure.lacks not in _NOT_LOADED:
                # It lacks what is no matter of buckets: users, or drives.
                return
            if time.monotonic() > ends_at:
                raise
            await asyncio.sleep(_POLL_SECONDS)
        else:
            return


async def _tell(client: Client) -> None:
    try:
        await client.admin("POST", "service", query={"action": "restart"})
    except AppUnavailableError as failure:
        # It may end before its answer has left.
        if not isinstance(failure.__cause__, aiohttp.ClientConnectionError | aiohttp.ClientPayloadError):
            raise
