"""What the server is, and whether the drive that the agent sees is its drive."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import msgspec

from agent.engines.filesystem import read_small_file
from agent.engines.minio.drive.layout import FORMAT, SYSTEM, other_drive, system_roots
from agent.engines.minio.server.client import Client, RefusedError, RootDeniedError
from common.errors import AppUnavailableError, ToolFailedError

ONLY_PORTABLE = "This is another S3 server than MinIO; it is exported in the portable format only."
OTHER_SERVER = (
    "This is another S3 server than MinIO: it has no way to store versions, delete markers and dates as they were, so "
    "nothing is imported into it."
)
BY_HAND = "The latest versions lie as files below `buckets/` in a portable archive; any S3 client uploads them."
PORTABLE_HINT = "Use the portable format, `?format=s3`."
_MOST_FORMAT_BYTES = 64 << 10


class _Drive(msgspec.Struct):
    path: str = ""


class _Server(msgspec.Struct):
    version: str = ""
    uptime: int = 0
    drives: list[_Drive] = []


class _Info(msgspec.Struct, rename={"deployment_id": "deploymentID", "event_targets": "sqsARN"}):
    deployment_id: str = ""
    event_targets: list[str] | None = None
    servers: list[_Server] = []


@dataclass(frozen=True)
class Facts:
    """A server as it is now.

    Attributes:
        version: for example "2025-04-22T22:12:26Z"; "DEVELOPMENT.GOGET" for one that was built from source.
        uptime_seconds: whole ones.
        kms: the name of its default key; empty: it has no KMS.
        event_targets: ARNs of those whom it can tell of changes in buckets.
    """

    version: str
    deployment_id: str
    uptime_seconds: int
    servers: int
    drives: int
    kms: str
    event_targets: tuple[str, ...] = ()


async def look(client: Client, *, seconds: float = 10.0) -> Facts:
    """Ask the server.

    Raises:
        AppUnavailableError: it does not answer, or not to the agent's credentials.
        ToolFailedError: what it answers is not what MinIO answers.
    """
    try:
        info = msgspec.convert((await client.admin("GET", "info", seconds=seconds)).json(), _Info)
    except msgspec.ValidationError as failure:
        raise ToolFailedError(f"What answers at {client.account.url} is not MinIO.") from failure
    except RefusedError as failure:
        raise AppUnavailableError(
            f"What answers at {client.account.url} has no admin API of MinIO: {failure.text}."
        ) from failure
    return Facts(
        version=info.servers[0].version if info.servers else "",
        deployment_id=info.deployment_id,
        uptime_seconds=info.servers[0].uptime if info.servers else 0,
        servers=len(info.servers),
        drives=sum(len(server.drives) for server in info.servers),
        kms=await _kms(client, seconds=seconds),
        event_targets=tuple(info.event_targets or ()),
    )


async def look_if_minio(client: Client) -> Facts | None:
    """The same of any S3 server; None for another than MinIO, which has no admin API.

    Raises:
        AppUnavailableError: it does not answer, or not to the agent's credentials.
    """
    try:
        return await look(client)
    except RootDeniedError:
        raise
    except (AppUnavailableError, ToolFailedError):
        answer = await client.call("GET", path="/")
        if answer.headers.get("Server") == "MinIO":
            raise
        return None


def obstacle_at(facts: Facts | None, directory: str) -> str:
    """What stands against reading and exchanging the drive in a directory; empty when nothing does.

    Args:
        facts: None: it is another server than MinIO.
        directory: empty: there is none in the agent's settings.
    """
    if facts is None:
        return ONLY_PORTABLE
    if not directory:
        return "The agent does not see the server's drive: its settings have no `directory`."
    return drive_obstacle(facts, Path(directory))


def drive_obstacle(facts: Facts, drive: Path) -> str:
    """Why the drive cannot be read or exchanged as it is; empty when it can."""
    if facts.servers != 1 or facts.drives != 1:
        return (
            f"The server has {facts.drives} drives on {facts.servers} servers; only the content of a single drive can "
            "be read and exchanged as a whole."
        )
    try:
        found = json.loads(read_small_file(drive / FORMAT, most_bytes=_MOST_FORMAT_BYTES, follow_links=True))
        kind, deployment_id = found["format"], found["id"]
    except OSError as failure:
        return f"The directory {drive} cannot be read as a drive of MinIO: {failure.strerror}."
    except (ValueError, KeyError, TypeError):
        return f"The directory {drive} is not a drive of MinIO: its format.json cannot be read."
    if other := other_drive(kind):
        return f"The drive {drive} is {other}; only a single drive of today's kind can be exchanged as a whole."
    if linked := next((path for path in (SYSTEM, *system_roots()) if (drive / path).is_symlink()), ""):
        return (
            f"On the drive {drive}, `{linked}` is a link; what lies elsewhere is neither read nor exchanged with "
            "the rest. Stop MinIO, put the directory itself there, and start it again."
        )
    if deployment_id != facts.deployment_id:
        return f"The drive {drive} is not the server's: its deployment id is {deployment_id}."
    return ""


async def _kms(client: Client, *, seconds: float) -> str:
    try:
        status = (await client.admin("POST", "kms/status", seconds=seconds)).json()
    except RefusedError:
        # 501: none is configured.
        return ""
    name = status.get("default-key-id") if isinstance(status, dict) else None
    return str(name or "unnamed")
