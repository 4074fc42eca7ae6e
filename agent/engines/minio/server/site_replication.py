"""Whole servers that replicate to each other: what is done on one is done on all, buckets, users and policies too."""

from __future__ import annotations

import msgspec

from agent.engines.minio.drive.replication_sites import Site, named
from agent.engines.minio.server.client import Client, RefusedError
from common.errors import AppUnavailableError

_NEXT_STEP = (
    "Take it out of the site replication (`mc admin replicate rm`), import, and let it join again; or import on a "
    "server that stands alone."
)


class _Info(msgspec.Struct):
    enabled: bool = False
    sites: list[Site] = []


async def obstacle(client: Client) -> str:
    """Why nothing can be imported into a server; empty: it stands alone.

    A site gets what an import makes and takes away, brings back what it lacks, and gives nothing back after an undo.
    """
    try:
        info = msgspec.convert((await client.admin("GET", "site-replication/info")).json(), _Info)
    except (RefusedError, msgspec.ValidationError):
        # A release without it.
        return ""
    if not info.enabled:
        return ""
    sites = named([site.endpoint for site in info.sites])
    return (
        f"This server replicates all that it has with {sites}. MinIO would mix what is imported with theirs, so that "
        "an import could not be taken back."
    )


async def require_alone(client: Client) -> None:
    """Raises AppUnavailableError where a server is not."""
    if found := await obstacle(client):
        raise AppUnavailableError(f"{found} Nothing was changed.", next_step=_NEXT_STEP)
