"""Whether content that lies in a tier is there still: asked of the server, which has only the name of it.

It says of such content that is gone what it says of an object that never was, when it is to give it out. Whether it has
the name, it says without a look at the tier. So each is read, a byte of it, and asked for again where that fails.
"""

from __future__ import annotations

import asyncio
import time

from agent.archives.members import printable
from agent.engines.minio.drive.tiers import Place, Tiered
from agent.engines.minio.server.client import Client, RefusedError
from common.errors import ServiceError
from common.wording import counted, some_of

_LOOK_SECONDS = 20.0
"""Most time for all of them, but for a call: some thousands from a tier that is near."""
_TIERS_SECONDS = 10.0
"""A server reads which tiers there are some moments after it began to serve."""
_POLL_SECONDS = 0.05
_CALL_SECONDS = 30.0
_ABSENT = (404, 405)
"""Of what is not there, and of a delete marker."""
_NAMED = 5


async def look(client: Client, tiered: Tiered) -> str:
    """What a person should know of versions that are there by name: whose content is gone, and how many were not
    looked at; empty where all content is there.

    Args:
        tiered: found on the drive that the server has now.
    """
    began_at = time.monotonic()
    gone: dict[str, int] = {}
    said, looked_at = "", 0
    for place in tiered.places:
        if time.monotonic() > began_at + _LOOK_SECONDS:
            break
        try:
            await _read(client, place, tiers_are_known_at=began_at + _TIERS_SECONDS)
        except RefusedError as refusal:
            name = printable(f"{place.bucket}/{place.key}")
            gone[name] = gone.get(name, 0) + 1
            said = said or refusal.text
        except ServiceError:
            break
        looked_at += 1
    told = []
    if gone:
        told.append(
            f"The content of {counted(sum(gone.values()), 'versions')} is gone from the tier "
            f"{', '.join(tiered.tiers)}, or cannot be read there; only their names are here "
            f"({some_of([*gone], _NAMED)}). {said.rstrip('.')}."
        )
    if left := tiered.versions - looked_at:
        more = " more" if looked_at else ""
        told.append(f"Whether the content of {counted(left, 'versions')}{more} is in the tier was not looked at.")
    return " ".join(told)


async def _read(client: Client, place: Place, *, tiers_are_known_at: float) -> None:
    """A byte of it. Nothing is amiss where a client has deleted the version meanwhile.

    Raises:
        RefusedError: it cannot be read.
        AppUnavailableError: the server does not answer.
    """
    query = {"versionId": place.version}
    headers = {"range": "bytes=0-0"} if place.size else {}
    while True:
        try:
            await client.call("GET", place.bucket, place.key, query=query, headers=headers, seconds=_CALL_SECONDS)
        except RefusedError as refusal:
            is_absent = refusal.status in _ABSENT
            if is_absent and not await _has_name(client, place):
                return
            if is_absent or time.monotonic() > tiers_are_known_at:
                raise
            await asyncio.sleep(_POLL_SECONDS)
        else:
            return


async def _has_name(client: Client, place: Place) -> bool:
    query = {"versionId": place.version}
    try:
        await client.call("HEAD", place.bucket, place.key, query=query, seconds=_CALL_SECONDS)
    except RefusedError as refusal:
        return refusal.status not in _ABSENT
    return True
