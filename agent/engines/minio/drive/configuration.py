"""A server's configuration, read from the file in which MinIO keeps it on its drive.

It is JSON: by subsystem and target, settings with a key and a value. Of a hostile one nothing is left out that MinIO
might read: it takes names of fields in any case, the last of two in an object, and the first setting of two with a key.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from agent.engines.minio.drive.layout import CONFIG, META

DIRECTORY = f"{CONFIG}/config.json"
FILE = f"{DIRECTORY}/{META}"


class Setting(NamedTuple):
    """One of a target's, or what may be one."""

    subsystem: str
    target: str
    key: str
    value: str


class _Pairs(list[tuple[str, Any]]):
    """A JSON object, with what it says twice."""


def settings_in(content: bytes) -> list[Setting] | None:
    """All of them; None: a KMS has encrypted it, or it is of before 2022.

    Args:
        content: of DIRECTORY.
    Raises:
        ValueError: it is no JSON.
    """
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    try:
        found = json.loads(text, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as failure:
        raise ValueError("it is no JSON") from failure
    return [
        Setting(*map(_as_read, (subsystem, target, key, value)))
        for subsystem, targets in _pairs_of(found)
        for target, settings in _pairs_of(targets)
        for setting in (settings if isinstance(settings, list) else ())
        for key in _said(setting, "key")
        for value in _said(setting, "value") or [""]
    ]


def _pairs_of(found: object) -> Iterator[tuple[str, Any]]:
    return iter(found if isinstance(found, _Pairs) else ())


def _said(setting: object, field: str) -> list[str]:
    return [str(value) for name, value in _pairs_of(setting) if name.lower() == field]


def _as_read(text: str) -> str:
    """By MinIO, which has U+FFFD for what is half a character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
