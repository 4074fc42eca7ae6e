"""Whole servers that replicate to each other: what is done on one is done on all, buckets, users and policies too.

The list of them is a file of the configuration. A server that finds itself with another's does to those sites what is
done on it, although they do not know it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from agent.archives.members import printable
from agent.engines.minio import contents
from agent.engines.minio.client import Client, RefusedError
from agent.engines.minio.layout import CONFIG, META
from agent.engines.minio.xlmeta import ObjectMeta
from common.errors import AppUnavailableError

FILE = f"{CONFIG}/site-replication/state.json/{META}"
_NAMED = 5
_NEXT_STEP = (
    "Take it out of the site replication (`mc admin replicate rm`), import, and let it join again; or import on a "
    "server that stands alone."
)


class _Site(msgspec.Struct):
    endpoint: str = ""


class _Info(msgspec.Struct):
    enabled: bool = False
    sites: list[_Site] = []


class _State(msgspec.Struct):
    peers: dict[str, _Site] = {}


class _File(msgspec.Struct, rename={"state": "srState"}):
    state: _State = msgspec.field(default_factory=_State)


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
    sites = _named([site.endpoint for site in info.sites])
    return (
        f"This server replicates all that it has with {sites}. MinIO would mix what is imported with theirs, so that "
        "an import could not be taken back."
    )


async def require_alone(client: Client) -> None:
    """Raises AppUnavailableError where a server is not."""
    if found := await obstacle(client):
        raise AppUnavailableError(f"{found} Nothing was changed.", next_step=_NEXT_STEP)


def sites_in(meta: ObjectMeta) -> list[str]:
    """Addresses of all sites, by the xl.meta of FILE; "others": they cannot be read."""
    if not meta.versions or meta.versions[0].is_marker:
        return []
    try:
        found = msgspec.json.decode(contents.newest_inline(meta), type=_File).state.peers
    except (msgspec.DecodeError, ValueError):
        return ["others"]
    return sorted(site.endpoint for site in found.values())


def about(sites: Sequence[str]) -> tuple[str, ...]:
    """A warning about the sites of another server, whose configuration comes; empty: there are none."""
    if not sites:
        return ()
    return (
        f"The archive's server replicates all that it has with {_named(sites)}, and so will this one: making and "
        "deleting buckets, users and policies here is done there too. Unless this one takes its place, import with "
        "`users=keep`, or an export with `secrets=left-out`.",
    )


def _named(sites: Sequence[str]) -> str:
    return ", ".join(printable(site) for site in sites[:_NAMED])
