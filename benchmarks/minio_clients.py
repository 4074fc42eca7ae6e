"""Clients of a MinIO that never rest, in a process of their own: what they were told, for comparison with what is true.

Half of them write, half read a mark in one bucket, then the same in another; an import changes it in both at once.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from agent.engines.minio.server.client import Client, connected
from agent.engines.minio.server.signing import Account
from common.errors import ServiceError

CLIENTS = 8
FIRST, SECOND, MARK = "first", "second", "mark"
OLD, NEW = b"old", b"new"


@dataclass
class Told:
    """What the clients met.

    Attributes:
        acknowledged: keys in FIRST that were stored, and when the call began.
        mixed: reads that saw the new mark first and the old one after that.
        refused: calls that failed, which is right while the server restarts.
    """

    acknowledged: dict[str, float] = field(default_factory=dict)
    reads: int = 0
    mixed: int = 0
    refused: int = 0


async def mark(client: Client, content: bytes) -> None:
    """Write the mark into both buckets."""
    for bucket in (FIRST, SECOND):
        await client.call("PUT", bucket, MARK, body=content)


@contextmanager
def hammering(account: Account) -> Iterator[Told]:
    """CLIENTS clients for the time of the block; what they were told is complete after it."""
    told = Told()
    spawning = multiprocessing.get_context("spawn")
    ours, theirs = spawning.Pipe()
    process = spawning.Process(target=_hammer, args=(account, theirs), name="clients of MinIO")
    process.start()
    try:
        ours.recv()
        yield told
        ours.send(None)
        vars(told).update(vars(ours.recv()))
    finally:
        process.join(5)
        process.kill()
        process.join()


def _hammer(account: Account, parent: Connection) -> None:
    asyncio.run(_until_told(account, parent))


async def _until_told(account: Account, parent: Connection) -> None:
    told = Told()
    async with asyncio.TaskGroup() as clients:
        tasks = [
            clients.create_task(_client(account, number, told), name=f"client {number}") for number in range(CLIENTS)
        ]
        parent.send(None)
        await asyncio.to_thread(parent.recv)
        for task in tasks:
            task.cancel()
    parent.send(told)


async def _client(account: Account, number: int, told: Told) -> None:
    async with connected(account, None) as client:
        turn = 0
        while True:
            turn += 1
            try:
                if number % 2:
                    began_at = time.monotonic()
                    await client.call("PUT", FIRST, f"written/{number}/{turn}", body=b"w" * 500)
                    told.acknowledged[f"written/{number}/{turn}"] = began_at
                else:
                    seen = [(await client.call("GET", bucket, MARK)).body for bucket in (FIRST, SECOND)]
                    told.reads += 1
                    told.mixed += seen == [NEW, OLD]
            except ServiceError:
                told.refused += 1
                await asyncio.sleep(0.01)
