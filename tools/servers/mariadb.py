"""MariaDB 10.11, server and clients, from Debian: the one release that a package registry has.

MySQL 8 is on none of them: Debian and PyPI have its clients at most.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tools.servers.cache import ServerUnavailableError, kept
from tools.servers.postgresql import debian_release, make_starters
from tools.servers.sources import unpack_debian

MARIADB_NAMES = ("mariadb-10.11",)
_PACKAGES = ("mariadb-server-core", "mariadb-client-core", "mariadb-client")


@dataclass(frozen=True)
class MariadbInstall:
    """Programs of one MariaDB.

    Attributes:
        version: what the server says of itself, for example "10.11.19".
        bin_directory: programs that run by their path alone.
        share_directory: error messages, character sets and the SQL that makes the system's tables.
    """

    version: str
    bin_directory: Path
    share_directory: Path

    @property
    def server(self) -> Path:
        return self.bin_directory / "mariadbd"


def mariadb(name: str = "mariadb-10.11") -> MariadbInstall:
    """A release by its name, got now when it is not in the cache (about 10 s).

    Raises:
        ServerUnavailableError: with the reason.
    """
    if name not in MARIADB_NAMES:
        raise ServerUnavailableError(name, f"known are {', '.join(MARIADB_NAMES)}")
    root = kept("mariadb-debian", f"10.11-{debian_release()}", _make)
    found = MariadbInstall("", root / "bin", root / "usr" / "share" / "mysql")
    said = subprocess.run([found.server, "--version"], capture_output=True, text=True, check=False)
    version = re.search(r"\bVer (\d+\.\d+\.\d+)-MariaDB", said.stdout)
    if version is None:
        raise ServerUnavailableError(name, f"it does not start: {(said.stderr or said.stdout).strip()}")
    if not version[1].startswith(name.partition("-")[2] + "."):
        raise ServerUnavailableError(name, f"its source has version {version[1]} by now")
    return MariadbInstall(version[1], found.bin_directory, found.share_directory)


def _make(making: Path) -> None:
    unpack_debian(_PACKAGES, making)
    libraries = Path("usr") / "lib" / f"{os.uname().machine}-linux-gnu"
    programs = making / "usr" / "bin"
    # One folder of starters for all programs.
    (making / "usr" / "sbin" / "mariadbd").rename(programs / "mariadbd")
    make_starters(programs, making / "bin", libraries=libraries)
