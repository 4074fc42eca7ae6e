"""Where an Uptime Kuma keeps its data, from the file that it writes at its setup and rewrites at each start."""

from __future__ import annotations

import enum
from pathlib import Path

import msgspec

from agent.engines.filesystem import read_small_file
from agent.engines.kuma.layout import CONFIGURATION
from common.errors import AppUnavailableError

_MOST_BYTES = 64 << 10


class Storage(enum.Enum):
    """As the app's configuration names it."""

    SQLITE = "sqlite"
    MARIADB = "mariadb"
    EMBEDDED_MARIADB = "embedded-mariadb"


class Configuration(msgspec.Struct, frozen=True, rename="camel"):
    """`db-config.json`. It holds a password: read it each time, and keep it out of logs and archives."""

    type: Storage = Storage.SQLITE
    hostname: str = "localhost"
    port: int | str = 3306
    db_name: str = "kuma"
    username: str = ""
    password: str = ""
    socket_path: str = ""
    ssl: bool = False

    @property
    def place(self) -> str:
        """Which database it is, for a person."""
        match self.type:
            case Storage.SQLITE:
                return "SQLite"
            case Storage.MARIADB:
                return f"MariaDB (database {self.db_name} on {self.socket_path or f'{self.hostname}:{self.port}'})"
            case Storage.EMBEDDED_MARIADB:
                return "a MariaDB of its own"


def configuration_of(directory: Path) -> Configuration:
    """SQLite where there is no such file: version 1, or an app that was not set up yet.

    Raises:
        AppUnavailableError: the file cannot be read, or names something that is not known.
    """
    try:
        # Links are followed: the file may be mounted from a ConfigMap or Secret.
        content = read_small_file(directory / CONFIGURATION, most_bytes=_MOST_BYTES, follow_links=True)
        found = msgspec.json.decode(content, type=Configuration)
    except FileNotFoundError:
        return Configuration()
    except OSError as failure:
        raise AppUnavailableError(f"The app's {CONFIGURATION} cannot be read: {failure.strerror}.") from failure
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as failure:
        # Not its text: the content may hold a password.
        raise AppUnavailableError(f"The app's {CONFIGURATION} is not as Uptime Kuma writes it.") from failure
    if found.ssl and found.type is Storage.MARIADB:
        raise AppUnavailableError("This Uptime Kuma reaches its MariaDB over TLS, which this recipe cannot do.")
    return found
