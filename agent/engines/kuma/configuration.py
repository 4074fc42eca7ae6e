"""Where an Uptime Kuma keeps its data, from the file that it writes at its setup and rewrites at each start."""

from __future__ import annotations

import enum
from pathlib import Path

import msgspec

from agent.engines.kuma.layout import CONFIGURATION
from common.errors import AppUnavailableError


class Storage(enum.Enum):
    """As the app's configuration names it."""

    SQLITE = "sqlite"
    MARIADB = "mariadb"
    EMBEDDED_MARIADB = "embedded-mariadb"


class _Configuration(msgspec.Struct):
    type: Storage = Storage.SQLITE


def storage_of(directory: Path) -> Storage:
    """SQLite where there is no such file: version 1, or an app that was not set up yet.

    Raises:
        AppUnavailableError: the file cannot be read, or names something that is not known.
    """
    try:
        return msgspec.json.decode((directory / CONFIGURATION).read_bytes(), type=_Configuration).type
    except FileNotFoundError:
        return Storage.SQLITE
    except (OSError, msgspec.DecodeError) as failure:
        raise AppUnavailableError(f"The app's {CONFIGURATION} cannot be read: {failure}.") from failure
