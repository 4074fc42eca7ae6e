"""The sites with which a whole server replicates, by the file of the configuration that lists them.

A server that finds itself with another's file does to those sites what is done on it, although they do not know it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from agent.archives.members import printable
from agent.engines.minio.drive.layout import CONFIG, META
from common.wording import some_of

FILE = f"{CONFIG}/site-replication/state.json/{META}"
_NAMED = 5


class Site(msgspec.Struct):
    """One server."""

    endpoint: str = ""


class _State(msgspec.Struct):
    peers: dict[str, Site] = {}


class _File(msgspec.Struct, rename={"state": "srState"}):
    state: _State = msgspec.field(default_factory=_State)


def sites_in(content: bytes) -> list[str]:
    """Addresses of all sites, by the content of that file; "others": they cannot be read."""
    try:
        found = msgspec.json.decode(content, type=_File).state.peers
    except (msgspec.DecodeError, ValueError):
        return ["others"]
    return sorted(site.endpoint for site in found.values())


def about(sites: Sequence[str]) -> tuple[str, ...]:
    """A warning about the sites of another server, whose configuration comes; empty: there are none."""
    if not sites:
        return ()
    return (
        f"The archive's server replicates all that it has with {named(sites)}, and so will this one: making and "
        "deleting buckets, users and policies here is done there too. Unless this one takes its place, import with "
        "`users=keep`, or an export with `secrets=left-out`.",
    )


def named(sites: Sequence[str]) -> str:
    """Their addresses for a person; the first five."""
    return some_of([printable(site) for site in sites], _NAMED)
