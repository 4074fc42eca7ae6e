"""One bucket's settings read anew by a running server, which keeps them in memory and never looks at them by itself.

One call does it: the bucket's rules for events are put, as they are on the drive. The server then reads all settings of
the bucket from the drive, under the name that the call has, writes them again with those rules and keeps them. (Its
import of settings does so too, but takes the bucket's name from what it reads, and what it cannot read for what it
has in memory.) There is no call for the remote targets of replication, and for rules that tell somebody whom the server
does not know: with them it has to be restarted.
"""

from __future__ import annotations

from pathlib import Path

import structlog

from agent.engines.minio.drive import bucket_settings
from agent.engines.minio.drive.event_targets import named_in
from agent.engines.minio.server.client import BYPASS, Client
from common.errors import ServiceError

_NO_RULES = b'<NotificationConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"></NotificationConfiguration>'
_log = structlog.get_logger(__name__)


def may_have_remote_targets(drive: Path, bucket: str) -> bool:
    """Whether a bucket on the drive is replicated to another server, or its settings cannot be read."""
    settings = bucket_settings.on_drive(drive, bucket)
    return settings is None or bucket_settings.holds_targets(settings.bucket_targets_config_json)


async def reload(client: Client, drive: Path, bucket: str, *, is_there: bool) -> bool:
    """Have a frozen server take notice of a bucket that was exchanged on its drive.

    Args:
        is_there: False: the bucket was taken away.
    Returns:
        Whether it knows all of it now; otherwise it has to be restarted.
    """
    try:
        if is_there:
            return await _read_again(client, drive, bucket)
        await _forget(client, bucket)
    except ServiceError as failure:
        _log.warning("The server did not reload a bucket.", action="reload", bucket=bucket, error=failure.text)
        return False
    return True


async def _read_again(client: Client, drive: Path, bucket: str) -> bool:
    settings = bucket_settings.on_drive(drive, bucket)
    if settings is None or bucket_settings.holds_targets(settings.bucket_targets_config_json):
        return False
    rules = settings.notification_config_xml or _NO_RULES
    # Refused where it knows one of those who are to be told not; then nothing was changed.
    await client.call("PUT", bucket, query={"notification": ""}, headers=BYPASS, body=rules)
    answer = await client.call("GET", bucket, query={"notification": ""}, headers=BYPASS)
    return named_in(answer.body) == named_in(rules)


async def _forget(client: Client, bucket: str) -> None:
    """By the only call that makes it forget: the bucket is made, empty, and deleted."""
    await client.call("PUT", bucket, headers=BYPASS)
    await client.call("DELETE", bucket, headers=BYPASS)
