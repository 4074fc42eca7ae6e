"""What in a server's configuration decides whether root is served, and the agent, which calls as root."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.engines.minio.drive.comparing import read_own
from agent.engines.minio.drive.configuration import DIRECTORY, Setting, settings_in
from common.errors import ArchiveIncompatibleError

UNREAD = "unread"
"""In place of settings: a KMS has encrypted them, or they are of before 2022."""
_HARMLESS = {("api", "root_access"): "on", ("policy_plugin", "url"): "", ("policy_opa", "url"): ""}
_SAYS = {
    "api root_access": "turns off root's access",
    "policy_plugin url": "has a service of its own judge each call, root's too",
    "policy_opa url": "has a service of its own judge each call, root's too",
}


def deciding_in(settings: Sequence[Setting] | None) -> dict[str, list[str]]:
    """The values of those that may take root's access away, by name: `api root_access`.

    Args:
        settings: as of `settings_in`.
    """
    if settings is None:
        return {UNREAD: []}
    told: dict[str, list[str]] = {}
    for one in settings:
        harmless = _HARMLESS.get((one.subsystem, one.key))
        if harmless is not None and one.value != harmless:
            told.setdefault(f"{one.subsystem} {one.key}", []).append(one.value)
    return told


def deciding_on(drive: Path) -> dict[str, list[str]]:
    """The same of the server's own configuration; none where it cannot be read."""
    try:
        return deciding_in(settings_in(read_own(drive / DIRECTORY)))
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
