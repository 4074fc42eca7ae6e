"""Whom a server tells what it does: collectors of the calls that it gets, and of its own log, that its configuration
names. They are told headers and names of objects of every call."""

from __future__ import annotations

import urllib.parse
from collections.abc import Sequence

from agent.archives.members import printable
from agent.engines.minio.drive.event_targets import enabled_in
from agent.engines.minio.drive.xlmeta import ObjectMeta
from common.wording import some_of

_PLACES = {"audit_webhook": "endpoint", "audit_kafka": "brokers", "logger_webhook": "endpoint"}
"""Which setting says where, by subsystem."""
_NAMED = 5


def collectors_in(meta: ObjectMeta) -> list[str]:
    """What a person calls them, by the configuration's xl.meta; none where it is encrypted."""
    return sorted(
        f"{subsystem} {_without_secrets(settings.get(_PLACES[subsystem], ''))}"
        for subsystem, _, settings in enabled_in(meta)
        if subsystem in _PLACES
    )


def about(collectors: Sequence[str]) -> tuple[str, ...]:
    """A warning about those of another server, whose configuration comes; empty: there are none."""
    if not collectors:
        return ()
    named = some_of([printable(one) for one in collectors], _NAMED)
    return (
        f"The archive's configuration has this server tell {named} of what it does, with the headers of each call. "
        "Unless that is meant, import with `users=keep`, or an export with `secrets=left-out`.",
    )


def _without_secrets(place: str) -> str:
    """An address without the name and password that it may hold, and what else may be a key."""
    try:
        parts = urllib.parse.urlsplit(place)
        return f"{parts.scheme}://{parts.hostname}" if parts.hostname else place.partition("?")[0]
    except ValueError:
        return "somebody"
