"""`python -m agent.engines.replay REQUEST`: the fingerprint of an archive's content, as one line of JSON.

REQUEST is a `Request` as JSON. The archive is one whose seal was checked before.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys

import msgspec

from agent.engines.replay import mariadb, minio, n8n, postgresql, redis, uptime_kuma, volume
from agent.engines.replay.request import Replayed, Request
from common.errors import ArchiveIncompatibleError, ServiceError
from common.fingerprints import Fingerprint

_REPLAYS = {
    "mariadb/2": mariadb.replay,
    "minio-s3/2": minio.replay,
    "minio/2": minio.replay,
    "n8n/2": n8n.replay,
    "postgresql/2": postgresql.replay,
    "redis/2": redis.replay,
    "uptime-kuma-mariadb/1": uptime_kuma.replay_mariadb,
    "uptime-kuma/1": uptime_kuma.replay_sqlite,
    "volume/1": volume.replay,
}


class Answer(msgspec.Struct, omit_defaults=True):
    """Either what was found, or the reason, text and next step of an error."""

    fingerprint: Fingerprint | None = None
    engine: str = ""
    unproven: str = ""
    reason: str = ""
    text: str = ""
    next_step: str = ""


async def replay(request: Request) -> Replayed:
    """What the archive holds; ArchiveIncompatibleError when nobody here can replay it."""
    if (found := _REPLAYS.get(request.scheme)) is None:
        raise ArchiveIncompatibleError(f"Archives with fingerprints of {request.scheme} cannot be replayed here.")
    return await found(request)


async def _answer(request: Request) -> Answer:
    task = asyncio.create_task(replay(request), name="replay an archive")
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        found = await task
        return Answer(fingerprint=found.fingerprint, engine=found.engine, unproven=found.unproven)
    except ServiceError as error:
        return Answer(reason=error.reason, text=error.text, next_step=error.next_step)


def main() -> None:
    with contextlib.suppress(asyncio.CancelledError):
        answer = asyncio.run(_answer(msgspec.json.decode(sys.argv[1], type=Request)))
        sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")


if __name__ == "__main__":
    main()
