"""One bucket's settings read anew by a running server, which keeps them in memory and never looks at them by itself.

Two calls do it. An import of settings that names the bucket and brings nothing makes the server read what is on the
drive, write that again and keep it. The rules for events are a list of their own, made when they are put. There is no
call for the remote targets of replication, and for rules that tell somebody whom the server does not know: with them it
has to be restarted.
"""

from __future__ import annotations

import io
import zipfile

import structlog

from agent.engines.minio.drive.event_targets import named_in
from agent.engines.minio.server.accounts import buckets_with_remote_targets
from agent.engines.minio.server.client import BYPASS, Client
from common.errors import ServiceError

_NOTHING = "nothing.json"
"""A file of settings that no release knows, so that none is changed."""
_RULES = "notification.xml"
_log = structlog.get_logger(__name__)


async def has_remote_targets(client: Client, bucket: str) -> bool:
    """Whether the server replicates a bucket to another server, as far as it knows itself."""
    return bool(await buckets_with_remote_targets(client, only=bucket))


async def reload(client: Client, bucket: str, *, is_there: bool) -> bool:
    """Have a frozen server take notice of a bucket that was exchanged on its drive.

    Args:
        is_there: False: the bucket was taken away.
    Returns:
        Whether it knows all of it now; otherwise it has to be restarted.
    """
    try:
        if is_there:
            return await _read_again(client, bucket)
        await _forget(client, bucket)
    except ServiceError as failure:
        _log.warning("The server did not reload a bucket.", action="reload", bucket=bucket, error=failure.text)
        return False
    return True


async def _read_again(client: Client, bucket: str) -> bool:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{bucket}/{_NOTHING}", b"")
    await client.admin("PUT", "import-bucket-metadata", body=file.getvalue())
    named = await _named(client, bucket)
    rules = await client.call("GET", bucket, query={"notification": ""}, headers=BYPASS)
    if named != named_in(rules.body):
        # Its own answer is without rules for somebody whom it does not know; put, they would be gone for ever.
        return False
    await client.call("PUT", bucket, query={"notification": ""}, headers=BYPASS, body=rules.body)
    return not await has_remote_targets(client, bucket)


async def _named(client: Client, bucket: str) -> list[str]:
    """Whom the rules for events name as they are on the drive."""
    exported = await client.admin("GET", "export-bucket-metadata", query={"bucket": bucket})
    with zipfile.ZipFile(io.BytesIO(exported.body)) as archive:
        name = f"{bucket}/{_RULES}"
        return named_in(archive.read(name)) if name in archive.namelist() else []


async def _forget(client: Client, bucket: str) -> None:
    """By the only call that makes it forget: the bucket is made, empty, and deleted."""
    await client.call("PUT", bucket, headers=BYPASS)
    await client.call("DELETE", bucket, headers=BYPASS)
