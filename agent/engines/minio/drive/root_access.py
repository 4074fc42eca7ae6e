"""What in a server's configuration decides whether root is served, and the agent, which calls as root.

A configuration is JSON: by subsystem and target, settings with a key and a value. Of a hostile one nothing is taken for
harmless that MinIO might read otherwise: it takes names of fields in any case, and knows the first of two.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agent.engines.minio.drive import xlmeta
from agent.engines.minio.drive.comparing import read_own
from agent.engines.minio.drive.layout import CONFIG, META
from common.errors import ArchiveIncompatibleError

DIRECTORY = f"{CONFIG}/config.json"
FILE = f"{DIRECTORY}/{META}"
UNREAD = "unread"
"""In place of settings: a KMS has encrypted them, or they are of before 2022."""
_HARMLESS = {("api", "root_access"): "on", ("policy_plugin", "url"): "", ("policy_opa", "url"): ""}
_SAYS = {
    "api root_access": "turns off root's access",
    "policy_plugin url": "has a service of its own judge each call, root's too",
    "policy_opa url": "has a service of its own judge each call, root's too",
}


class _Pairs(list[tuple[str, Any]]):
    """A JSON object, with what it says twice."""


def deciding_in(meta: bytes, content: bytes) -> dict[str, list[str]]:
    """The values of settings that may take root's access away, by name: `api root_access`.

    Args:
        meta: the xl.meta of FILE, which can be read.
        content: of the file.
    Raises:
        ValueError: nobody can tell what MinIO reads there.
    """
    if not xlmeta.holds_one(meta):
        raise ValueError("it is kept otherwise than MinIO keeps any")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return {UNREAD: []}
    try:
        found = json.loads(text, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as failure:
        raise ValueError("it is no JSON") from failure
    told: dict[str, list[str]] = {}
    for subsystem, targets in _pairs_of(found):
        for _, settings in _pairs_of(targets):
            for setting in settings if isinstance(settings, list) else ():
                for key in _said(setting, "key"):
                    harmless = _HARMLESS.get((subsystem, key))
                    values = _said(setting, "value") or [""]
                    if harmless is not None and set(values) != {harmless}:
                        told.setdefault(f"{subsystem} {key}", []).extend(values)
    return told


def deciding_on(drive: Path) -> dict[str, list[str]]:
    """The same of the server's own configuration; none where it cannot be read."""
    try:
        return deciding_in(*read_own(drive / DIRECTORY))
    except (OSError, ValueError):
        return {}


def require_kept(coming: Mapping[str, list[str]], now: Mapping[str, list[str]]) -> None:
    """Refuse a configuration that may take root's access away, unless this server has the same and serves root.

    Raises:
        ArchiveIncompatibleError: by the settings' names; nothing was changed.
    """
    for name, values in coming.items():
        if name != UNREAD and now.get(name) != values:
            raise ArchiveIncompatibleError(
                f"The archive's configuration {_SAYS[name]} (`{name}`): the agent calls as root, and could neither "
                "finish the import nor take it back. Nothing was changed.",
                next_step="Import with `users=keep`, which leaves this server's users, policies and configuration as "
                "they are; or change that setting on the source (`mc admin config set`), export again, and set it here "
                "after the import.",
            )


def about_unread(coming: Mapping[str, list[str]]) -> tuple[str, ...]:
    """A warning about a configuration that the agent cannot read."""
    if UNREAD not in coming:
        return ()
    return (
        "The archive's configuration is encrypted, or older than 2022, and may turn off root's access: "
        "`api root_access` is set to `on` in it, or this server would lock out its agent.",
    )


def _pairs_of(found: object) -> Iterator[tuple[str, Any]]:
    return iter(found if isinstance(found, _Pairs) else ())


def _said(setting: object, field: str) -> list[str]:
    return [str(value) for name, value in _pairs_of(setting) if name.lower() == field]
