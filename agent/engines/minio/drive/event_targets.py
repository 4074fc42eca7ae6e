"""Whom a server tells of changes in buckets: services that its environment or its configuration names.

Buckets name them by their ARN, `arn:minio:sqs:<region>:<id>:<type>`. A MinIO leaves out the rules of a bucket whose
service it does not know when it starts, and says so to nobody who asks for them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from agent.archives.members import printable
from agent.engines.minio.drive.configuration import Setting
from common.wording import some_of

_PREFIX = "notify_"
_ON = ("on", "true", "t", "1", "enabled")
"""What MinIO takes for it, in any case."""
_ARN = re.compile(rb"<(Queue|Topic|CloudFunction)>\s*([^<]*?)\s*</\1>")
_TYPES = {"postgres": "postgresql"}
"""What ARNs call other than the configuration does."""
_NAMED = 5


def named_in(notification: bytes) -> list[str]:
    """ARNs in the notification settings of a bucket."""
    return sorted({found[1].decode(errors="replace") for found in _ARN.findall(notification)})


def enabled_in(settings: Sequence[Setting]) -> list[tuple[str, str]]:
    """Subsystem and target of what is enabled, or may be."""
    found = [(one.subsystem, one.target) for one in settings if one.key == "enable" and one.value.lower() in _ON]
    return list(dict.fromkeys(found))


def configured_in(settings: Sequence[Setting]) -> list[str]:
    """Ends of ARNs, `<id>:<type>`, of what is enabled."""
    return [
        f"{target}:{_TYPES.get(kind, kind)}"
        for subsystem, target in enabled_in(settings)
        if (kind := subsystem.removeprefix(_PREFIX)) != subsystem
    ]


def about_unknown(
    named: Mapping[str, Collection[str]], *, known: Collection[str], configured: Collection[str]
) -> tuple[str, ...]:
    """Sentences about buckets whose events nobody is going to be told.

    Args:
        named: ARNs by bucket.
        known: ARNs that the server has.
        configured: as `configured_in`, of a configuration that comes along.
    """
    ends = tuple(f":{end}" for end in configured)
    unknown = {
        bucket: [arn for arn in arns if arn not in known and not arn.endswith(ends)] for bucket, arns in named.items()
    }
    return tuple(
        f"The bucket {bucket} tells of its changes to {some_of([printable(arn) for arn in arns], _NAMED)}, which this "
        "server does not know: nobody is told until it is set up here, as on the archive's server, and MinIO started "
        "again."
        for bucket, arns in sorted(unknown.items())[:_NAMED]
        if arns
    )
