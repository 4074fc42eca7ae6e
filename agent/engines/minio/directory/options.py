"""What a caller may choose for an export or an import."""

from __future__ import annotations

from collections.abc import Mapping

from agent.engines.minio.directory.exporting import SECRETS
from agent.options import choices_of
from common.errors import InvalidRequestError

_EXPORT: dict[str, tuple[str, ...]] = {"secrets": tuple(SECRETS)}
_IMPORT: dict[str, tuple[str, ...]] = {
    "users": ("archive", "keep"),
    "locks": ("refuse", "drop"),
    "settings": ("refuse", "drop"),
    "tiered": ("refuse", "share"),
}
"""The first is the default."""
_NAMES = {
    "bucket": "Name the bucket, or leave the option out to import all of them.",
    "root": "Name the root of the server that the archive is of, or leave the option out.",
}


def of_export(options: Mapping[str, str]) -> dict[str, str]:
    """All options with their values; InvalidRequestError for an unknown one."""
    return choices_of(options, _EXPORT, what="An export from MinIO")


def of_import(options: Mapping[str, str]) -> dict[str, str]:
    """The same; `bucket` and `root` are names, or empty where they were not given."""
    given = dict(options)
    names = {name: given.pop(name, "") for name in _NAMES}
    for name, next_step in _NAMES.items():
        if name in options and not names[name]:
            raise InvalidRequestError(
                f"The option {name} is empty, so it names nothing; nothing was changed.", next_step=next_step
            )
    return choices_of(given, _IMPORT, what="An import into MinIO") | names
