"""The server's S3 calls held up for a moment, reads and lists too; nobody gets an error, all wait.

A freeze has no end of its own and is counted: so a child begins and ends it (`watchdog`), whatever becomes of us. Never
restart, stop or signal a frozen server: it answers the calls that wait with 200 and does nothing (240 of 240, release
of May 2023). Frozen or not is a state of the process, so a server that was started again is not.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import IO

import structlog

from agent.engines.minio.server.client import Client
from agent.engines.minio.server.settings import MinioSettings
from agent.engines.minio.server.watchdog import KEEP, Guarded, Orders
from agent.processes import Child, Command, start
from common.errors import AppBusyError, AppUnavailableError, ServiceError, ToolFailedError

_log = structlog.get_logger(__name__)
_THAWED_WITHIN_SECONDS = 1.0
_MOST_FREEZES = 20


class Freeze:
    """A server that is frozen.

    Attributes:
        seconds: how long it was, once it is over.
    """

    def __init__(self, child: Child, client: Client, *, alive: int, is_whole: Callable[[], bool]) -> None:
        self._child = child
        self._client = client
        self._alive = alive
        self._is_whole = is_whole
        self._began_at = time.monotonic()
        self._is_over = False
        self.seconds = 0.0

    def is_on(self) -> bool:
        """False: its keeper has ended it, or is about to, or is gone. For any thread, while the block lasts."""
        return not select.select([self._alive], [], [], 0)[0]

    async def end(self) -> None:
        """Let clients go on, unless the drive is not whole; a second time does nothing.

        Raises:
            AppBusyError: it had ended before, since it took too long or somebody killed its keeper.
        """
        if self._is_over:
            return
        self._is_over = True
        if not self._is_whole():
            _log.error("Clients wait until the exchange of the data has been finished.", action="unfreeze")
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                await self._child.write(f"{KEEP}\n".encode())
            await self._child.wait()
            return
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            await self._child.write(b"release\n")
        said = await _line(self._child)
        self.seconds = time.monotonic() - self._began_at
        if said != "released":
            # A watchdog that was killed has left the server frozen.
            await thaw_if_there(self._client)
            raise AppBusyError(
                "The server was not held still as long as it had to be.", next_step="Try again when it is less busy."
            )


@asynccontextmanager
async def frozen(
    client: Client,
    settings: MinioSettings,
    *,
    most_seconds: float,
    exchange: Guarded | None = None,
    is_whole: Callable[[], bool] = lambda: True,
) -> AsyncIterator[Freeze]:
    """The server frozen for the time of the block, or until `end`.

    Args:
        most_seconds: after which the watchdog ends it anyway.
        exchange: what is done meanwhile; the watchdog puts it to one side first where we do not.
        is_whole: whether clients may be served; False at the end: the server stays frozen.
    Raises:
        AppUnavailableError: it could not be frozen; it is not.
        AppBusyError: at the end of the block, as `Freeze.end`.
    """
    account = client.account
    with _pipe() as (alive, of_the_watchdog):
        orders: Orders = {
            "url": account.url,
            "user": account.user,
            "password": account.password,
            "region": account.region,
            "tls_ca_file": settings.tls_ca_file,
            "most_seconds": most_seconds,
            "alive": of_the_watchdog.fileno(),
            "exchange": exchange,
        }
        command = Command(["agent.engines.minio.server.watchdog"], is_module=True, pass_fds=[of_the_watchdog.fileno()])
        async with start(command) as child:
            of_the_watchdog.close()
            try:
                await child.write(json.dumps(orders).encode() + b"\n")
                said = await _line(child)
            except (BrokenPipeError, ConnectionResetError):
                said = ""
            if said != "frozen":
                await child.wait()
                raise AppUnavailableError(f"MinIO could not be frozen: {child.stderr_tail or 'the watchdog ended'}.")
            freeze = Freeze(child, client, alive=alive.fileno(), is_whole=is_whole)
            try:
                yield freeze
            finally:
                await freeze.end()


@contextmanager
def _pipe() -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    reading, writing = os.pipe2(os.O_CLOEXEC)
    with open(reading, "rb", buffering=0) as one, open(writing, "wb", buffering=0) as other:
        yield one, other


async def thaw(client: Client) -> None:
    """End whatever freezes an agent left behind that was killed together with its watchdog.

    Raises:
        AppUnavailableError: the server does not answer.
        ToolFailedError: it stays frozen.
    """
    for _ in range(_MOST_FREEZES):
        try:
            await client.call("GET", path="/", seconds=_THAWED_WITHIN_SECONDS)
        except AppUnavailableError as failure:
            if not isinstance(failure.__cause__, TimeoutError):
                raise
        else:
            return
        _log.warning("The server does not answer S3 calls; it is told to go on.", action="unfreeze")
        # Superfluous ones do no harm.
        await client.admin("POST", "service", query={"action": "unfreeze"})
    raise ToolFailedError("MinIO answers admin calls and no S3 calls, whatever it is told.")


async def thaw_if_there(client: Client) -> None:
    """The same, of a server that may not be running: then it is not frozen."""
    try:
        await thaw(client)
    except ServiceError as failure:
        _log.info("Whether the server is frozen could not be seen.", action="unfreeze", error=failure.text)


async def _line(child: Child) -> str:
    line = b""
    while not line.endswith(b"\n") and (more := await child.read(64)):
        line += more
    return line.decode(errors="replace").strip()
