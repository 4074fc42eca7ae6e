"""What a caller may choose for an export or an import."""

from __future__ import annotations

from collections.abc import Mapping

from agent.engines.minio.directory.exporting import SECRETS
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
    return _checked(options, _EXPORT, "export from")


def of_import(options: Mapping[str, str]) -> dict[str, str]:
    """The same; `bucket` and `root` are names, or empty where they were not given."""
    given = dict(options)
    names = {name: given.pop(name, "") for name in _NAMES}
    for name, next_step in _NAMES.items():
        if name in options and not names[name]:
            raise InvalidRequestError(
                f"The option {name} is empty, so it names nothing; nothing was changed.", next_step=next_step
            )
    return _checked(given, _IMPORT, "import into") | names


def _checked(options: Mapping[str, str], known: Mapping[str, tuple[str, ...]], what: str) -> dict[str, str]:
    for name, value in options.items():
        if value not in known.get(name, ()):
            there_are = "; ".join(f"{found}: {' or '.join(values)}" for found, values in known.items())
            raise InvalidRequestError(f"An {what} MinIO has no option {name}={value}. There are {there_are}.")
    return {name: options.get(name, values[0]) for name, values in known.items()}
