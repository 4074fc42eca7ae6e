"""A frozen server waited for until nothing is on its way that it began before: a freeze holds new S3 calls only.

A write reads an object's `xl.meta` and puts the next one in its place some moments later; where the bucket is exchanged
in between, versions of one side come into the other. How many calls are on their way is in a header of every answer.
But an upload may be for hours, as it waits for its client, and tasks of the server's own are no calls. What tells
whether anything is written at a moment is the profile of goroutines: each with the functions that it is in.
"""

from __future__ import annotations

import asyncio
import io
import re
import time
import zipfile
from collections.abc import Callable

import structlog

from agent.engines.minio.server.client import BYPASS, Client, RefusedError
from common.errors import ServiceError

_CALLS_SECONDS = 1.0
"""What is on its way for longer waits for its client, as a rule."""
_WRITES_SECONDS = 5.0
"""A write takes milliseconds once its content has come, or a second on a very slow disk."""
_ANSWER_SECONDS = 5.0
_POLL_SECONDS = 0.005
_PROFILE = {"profilerType": "goroutines", "duration": "0s"}
_STACKS = "-goroutines.txt"
"""How the name of one of the files in the answer ends: stacks, each with a blank line after it."""
_WRITES = re.compile(
    r"[.*]erasureObjects\)?\.(putObject|CompleteMultipartUpload|CopyObject|Delete\w+|deletePrefix|deleteObjectVersion"
    r"|PutObjectMetadata|PutObjectTags|updateObjectMeta\w*|updateRestoreMetadata|commitRenameDataDir|healObject\w*)\b"
    r"|\(\*xlStorage\)\.(RenameData|RenameFile|UpdateMetadata|WriteMetadata|[dD]eleteVersions?|CleanAbandonedData)\b"
)
"""Functions that change objects, of MinIO's last release (February 2026)."""
_HAS_YET_TO_READ = re.compile(r"\(\*Erasure\)\.Encode\b|\.GetLock\b")
"""It takes in an upload's content, or waits for its turn: what is there of the object, it reads after that."""
_WAITS_TO_READ = re.compile(r"\.GetRLock\b")
_log = structlog.get_logger(__name__)


async def until_no_calls(client: Client) -> None:
    """Returns once no S3 call is on its way, or after a second: then only those are left that take long."""
    ends_at = time.monotonic() + _CALLS_SECONDS
    while await _has_calls(client):
        if time.monotonic() > ends_at:
            return
        await asyncio.sleep(_POLL_SECONDS)


async def until_nothing_is_written(client: Client) -> bool:
    """Whether it came to a moment at which the server changed no object.

    A server that does not tell, as older ones, is given as long as any write should take.
    """
    ends_at = time.monotonic() + _WRITES_SECONDS
    is_told = False
    while True:
        reason = ""
        try:
            if not (writing := writing_in(await _stacks(client))):
                return True
            is_told = True
        except (RefusedError, LookupError, zipfile.BadZipFile) as failure:
            # Also where somebody else has it make a profile: it makes one at a time.
            reason = str(failure)
        except ServiceError as failure:
            reason, is_told = failure.text, True
        if time.monotonic() > ends_at:
            said = reason or f"it is in {', '.join(sorted(set(writing)))}"
            _log.warning("The server was not seen to write nothing.", action="wait_for_writes", error=said)
            return not is_told
        await asyncio.sleep(_POLL_SECONDS)


async def has_read_that_waits(client: Client) -> bool:
    """Whether a read waits for its turn, as where a client writes the object under a condition: such an upload keeps
    others away while it comes, for hours perhaps. False where the server does not tell."""
    try:
        return bool(_WAITS_TO_READ.search(await _stacks(client)))
    except (ServiceError, LookupError, zipfile.BadZipFile):
        return False


def from_thread(client: Client) -> Callable[[], bool]:
    """`until_nothing_is_written` as a function that blocks, for a thread beside the running loop."""
    loop = asyncio.get_running_loop()
    return lambda: asyncio.run_coroutine_threadsafe(until_nothing_is_written(client), loop).result()


def writing_in(stacks: str) -> list[str]:
    """The functions that change objects just then.

    Args:
        stacks: a profile of goroutines, as Go writes it for people.
    """
    found = (_WRITES.search(stack) for stack in stacks.split("\n\n") if not _HAS_YET_TO_READ.search(stack))
    return [match[0].lstrip(".*") for match in found if match]


async def _has_calls(client: Client) -> bool:
    """False where the server does not tell."""
    try:
        headers = (await client.call("GET", path="/", headers=BYPASS, seconds=_ANSWER_SECONDS)).headers
        return int(headers["X-RateLimit-Remaining"]) < int(headers["X-RateLimit-Limit"])
    except (ServiceError, LookupError, ValueError):
        return False


async def _stacks(client: Client) -> str:
    answer = await client.admin("POST", "profile", query=_PROFILE, seconds=_ANSWER_SECONDS)
    with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
        name = next((name for name in archive.namelist() if name.endswith(_STACKS)), _STACKS)
        return archive.read(name).decode(errors="replace")
