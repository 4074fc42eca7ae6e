"""What a watchdog does with an exchange that its agent has left unfinished, before it lets clients go on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path

from agent.engines.minio.drive.exchange import Exchange
from agent.engines.minio.server import quiet
from agent.engines.minio.server.client import connected
from agent.engines.minio.server.watchdog import Guarded, Orders, account_of, tls_context
from agent.engines.swapping import Side
from common.errors import InternalError, ServiceError

_AGAIN_SECONDS = 1.0


def leave_whole(guarded: Guarded, orders: Orders, *, is_alone: bool) -> None:
    """Have one side in place, and nobody begin to exchange after that who counts on this freeze.

    Waits for whoever exchanges just then: the agent, were it the next one, which finishes what it has begun. While the
    drive refuses it is tried again, without end: the server stays frozen until this or an agent has come to one side.

    Args:
        is_alone: the agent is gone; else its time is up.
    """
    # Nobody may read any more what is logged.
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        while not _is_whole(guarded, orders, is_alone=is_alone):
            time.sleep(_AGAIN_SECONDS)


def _is_whole(guarded: Guarded, orders: Orders, *, is_alone: bool) -> bool:
    exchange = Exchange(Path(guarded["drive"]), guarded["key"], only=guarded["only"])
    try:
        with exchange.held() as is_only:
            if exchange.is_unfinished() and (is_only or is_alone):
                exchange.recover(side=Side(guarded["side"]), until_quiet=lambda: asyncio.run(_until_quiet(orders)))
            # Before somebody else may exchange.
            os.close(orders["alive"])
    except InternalError:
        # It is gone, or its journal tells nothing: there is nothing that could be finished.
        return True
    except ServiceError:
        return False
    return True


async def _until_quiet(orders: Orders) -> bool:
    async with connected(account_of(orders), tls_context(orders)) as client:
        return await quiet.until_nothing_is_written(client)
