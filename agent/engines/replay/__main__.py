"""`python -m agent.engines.replay REQUEST FILE`: the fingerprint of an archive's content, as one line of JSON.

REQUEST is a `Request` as JSON, without its file, whose name may be none that JSON holds. The archive is one whose seal
was checked before.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import signal
import sys
from collections.abc import Awaitable, Callable

import msgspec

from agent.engines.replay.request import Replayed, Request
from common.errors import ArchiveIncompatibleError, ServiceError
from common.fingerprints import Fingerprint

_REPLAYS = {
    "mariadb/3": ("agent.engines.replay.mariadb", "replay"),
    "minio-s3/3": ("agent.engines.replay.minio", "replay"),
    "minio/2": ("agent.engines.replay.minio", "replay"),
    "n8n/3": ("agent.engines.replay.n8n", "replay"),
    "postgresql/2": ("agent.engines.replay.postgresql", "replay"),
    "postgresql/3": ("agent.engines.replay.postgresql", "replay"),
    "redis/4": ("agent.engines.replay.redis", "replay"),
    "uptime-kuma-mariadb/3": ("agent.engines.replay.uptime_kuma", "replay_mariadb"),
    "uptime-kuma/3": ("agent.engines.replay.uptime_kuma", "replay_sqlite"),
    "volume/2": ("agent.engines.replay.volume", "replay"),
}
"""Module and function. Imported when it is needed: all of them take half a second."""
SCHEMES = tuple(_REPLAYS)


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
    if request.scheme not in _REPLAYS:
        raise ArchiveIncompatibleError(f"Archives with fingerprints of {request.scheme} cannot be replayed here.")
    return await replay_of(request.scheme)(request)


def replay_of(scheme: str) -> Callable[[Request], Awaitable[Replayed]]:
    """The function for one of `SCHEMES`."""
    module, function = _REPLAYS[scheme]
    found: Callable[[Request], Awaitable[Replayed]] = getattr(importlib.import_module(module), function)
    return found


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
        told, file = sys.argv[1:]
        answer = asyncio.run(_answer(msgspec.convert({**msgspec.json.decode(told), "file": file}, Request)))
        sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")


if __name__ == "__main__":
    main()
