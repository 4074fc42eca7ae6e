"""MariaDB, server and clients, from Debian's releases: 10.11 for the machine's own, 11.8 with its own C library."""

from __future__ import annotations

import functools
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.servers.cache import ServerUnavailableError, kept
from tools.servers.postgresql import debian_release, make_starters
from tools.servers.sources import unpack_debian

_PACKAGES = ("mariadb-server-core", "mariadb-client-core", "mariadb-client")
_OF_OTHER_RELEASES = {"mariadb-11.8": "trixie"}
MARIADB_NAMES = ("mariadb-10.11", *_OF_OTHER_RELEASES)


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

    @property
    def client(self) -> Path:
        return self.bin_directory / "mariadb"


@functools.cache
def mariadb(name: str = "mariadb-10.11") -> MariadbInstall:
    """A release by its name, got now when it is not in the cache (about 10 s).

    Raises:
        ServerUnavailableError: with the reason.
    """
    if name not in MARIADB_NAMES:
        raise ServerUnavailableError(name, f"known are {', '.join(MARIADB_NAMES)}")
    release = _OF_OTHER_RELEASES.get(name, "")

    def make(making: Path) -> None:
        make_debian(making, _PACKAGES, release=release)

    root = kept("mariadb-debian", f"{name.partition('-')[2]}-{release or debian_release()}", make)
    [share] = (root / "usr" / "share").glob("m*/charsets")
    found = MariadbInstall("", root / "bin", share.parent)
    said = subprocess.run([found.server, "--version"], capture_output=True, text=True, check=False)
    version = re.search(r"\bVer (\d+\.\d+\.\d+)-MariaDB", said.stdout)
    if version is None:
        raise ServerUnavailableError(name, f"it does not start: {(said.stderr or said.stdout).strip()}")
    if not version[1].startswith(name.partition("-")[2] + "."):
        raise ServerUnavailableError(name, f"its source has version {version[1]} by now")
    return MariadbInstall(version[1], found.bin_directory, found.share_directory)


def make_debian(making: Path, packages: Sequence[str], *, release: str) -> None:
    """Unpack packages of this machine's Debian release or another, with one folder of starters for all programs."""
    unpack_debian(packages, making, release=release)
    programs = making / "usr" / "bin"
    for server in ("mariadbd", "mysqld"):
        if (path := making / "usr" / "sbin" / server).is_file() and not path.is_symlink():
            path.rename(programs / server)
    make_starters(
        programs,
        making / "bin",
        libraries=Path("usr") / "lib" / f"{os.uname().machine}-linux-gnu",
        loader=Path("usr") / "lib64" / "ld-linux-x86-64.so.2" if release else None,
    )
