"""MySQL, server and clients, from the Debian release that still has it; its C library comes along.

MySQL 8 itself is in no package registry any more: what there is, is the long-term release after it.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tools.servers.cache import ServerUnavailableError, kept
from tools.servers.mariadb import MariadbInstall, make_debian
from tools.servers.mariadb_server import MariadbServer
from tools.servers.processes import ServerStartError, ServerUser, give

MYSQL_NAMES = ("mysql-9.7",)
_RELEASE = "sid"
_PACKAGES = ("mysql-server-core", "mysql-client-core")


class MysqlInstall(MariadbInstall):
    """Programs of one MySQL."""

    @property
    def server(self) -> Path:
        return self.bin_directory / "mysqld"

    @property
    def client(self) -> Path:
        return self.bin_directory / "mysql"


def mysql(name: str = MYSQL_NAMES[0]) -> MysqlInstall:
    """A release by its name, got now when it is not in the cache (about 30 s).

    Raises:
        ServerUnavailableError: with the reason.
    """
    if name not in MYSQL_NAMES:
        raise ServerUnavailableError(name, f"known are {', '.join(MYSQL_NAMES)}")
    wanted = name.partition("-")[2]
    root = kept("mysql-debian", f"{wanted}-{_RELEASE}", lambda making: make_debian(making, _PACKAGES, release=_RELEASE))
    said = subprocess.run([root / "bin" / "mysqld", "--version"], capture_output=True, text=True, check=False)
    version = re.search(r"\bVer (\d+\.\d+\.\d+)", said.stdout)
    if version is None:
        raise ServerUnavailableError(name, f"it does not start: {(said.stderr or said.stdout).strip()}")
    if not version[1].startswith(wanted + "."):
        raise ServerUnavailableError(name, f"its source has version {version[1]} by now")
    return MysqlInstall(version[1], root / "bin", root / "usr" / "share" / "mysql")


class MysqlServer(MariadbServer):
    """As MariadbServer, with MySQL in it."""

    def _command(self) -> list[str | Path]:
        options = {
            "innodb-buffer-pool-size": "32M",
            "innodb-redo-log-capacity": "32M",
            "innodb-flush-log-at-trx-commit": "1" if self._fsync else "0",
            "plugin-dir": str(self.install.share_directory.parents[1] / "lib" / "mysql" / "plugin"),
            # Its default is a folder that only an installed package has.
            "secure-file-priv": "NULL",
            "mysqlx": "OFF",
            **self._settings,
        }
        share = self.install.share_directory
        return [
            self.install.server,
            "--no-defaults",
            f"--datadir={self.data_directory}",
            f"--lc-messages-dir={share}",
            f"--character-sets-dir={share / 'charsets'}",
            f"--pid-file={self.directory / 'pid'}",
            "--skip-log-bin",
            *(f"--{name}={value}" for name, value in options.items()),
        ]

    def _make_data(self, user: ServerUser | None) -> None:
        self.data_directory.mkdir()
        accounts = self.directory / "accounts.sql"
        accounts.write_text("\n".join([*self._accounts(), "DROP USER root@localhost;", ""]))
        accounts.chmod(0o600)
        for path in (self.data_directory, accounts):
            give(path, user)
        ended = subprocess.run(
            [*self._command(), "--initialize-insecure", f"--init-file={accounts}"],
            capture_output=True,
            text=True,
            check=False,
            user=None if user is None else user.uid,
            group=None if user is None else user.gid,
            extra_groups=None if user is None else [],
        )
        accounts.unlink()
        if ended.returncode != 0:
            raise ServerStartError(f"MySQL's data could not be made: {ended.stderr.strip()[-2000:]}")
