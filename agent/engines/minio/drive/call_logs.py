"""Whom a server tells what it does: collectors of the calls that it gets, and of its own log, that its configuration
names. They are told headers and names of objects of every call."""

from __future__ import annotations

import unicodedata  # noqa: F401  # urlsplit reads it at the first host beyond ASCII, which no child in the jail can
import urllib.parse
from collections.abc import Sequence

from agent.archives.members import printable
from agent.engines.minio.drive.configuration import Setting
from agent.engines.minio.drive.event_targets import enabled_in
from common.wording import some_of

_PLACES = {"audit_webhook": "endpoint", "audit_kafka": "brokers", "logger_webhook": "endpoint"}
"""Which setting says where, by subsystem."""
_NAMED = 5


def collectors_in(settings: Sequence[Setting]) -> list[str]:
    """What a person calls those that a configuration names."""
    places = {(one.subsystem, one.target, one.key): one.value for one in reversed(settings)}
    return sorted(
        f"{subsystem} {_without_secrets(places.get((subsystem, target, _PLACES[subsystem]), ''))}"
        for subsystem, target in enabled_in(settings)
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
