"""A MySQL server of the agent's own, to look into a dump of MySQL's; as `mariadb`, whose orders it follows.

Needs `mysqld`, which brings all that its system tables are made of.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from agent.engines.mariadb.own.mariadb import USUAL_DIRECTORIES, OwnServer, ServerPrograms, first_server
from agent.engines.mariadb.server.client import literal
from agent.processes import Command, run
from common.errors import AppUnavailableError

_SHARES = ("../share/mysql", "../share", "../mysql/share", "../usr/share/mysql")
_PLUGINS = ("../lib/mysql/plugin", "../lib/plugin", "../mysql/lib/plugin", "../usr/lib/mysql/plugin")
_VERSION = re.compile(r"\bVer (\d+)\.(\d+)\.\d+\b(?!\S*-MariaDB)")


async def find_mysql(clients: Path, directories: Sequence[str] = USUAL_DIRECTORIES) -> ServerPrograms:
    """The first MySQL server there is, beside the clients or in the usual places.

    Raises:
        AppUnavailableError: there is none.
    """
    found = await first_server("mysqld", clients, directories, shares=_SHARES, is_share=_has_charsets, version=_VERSION)
    if found:
        return found
    raise AppUnavailableError("There is no MySQL server here (mysqld).", next_step="Install one where the agent runs.")


def _has_charsets(share: Path) -> bool:
    return (share / "charsets").exists()


class OwnMysql(OwnServer):
    """One data directory and the server for it; `make` makes it without any account."""

    name = "MySQL"

    async def make(self, *, socket_user: str = "") -> None:
        self._data.mkdir(mode=0o755)
        self._give(self._data)
        await run(Command([*self._argv(), "--initialize-insecure"], jail=self._jail))

    def _opening(self, user: str, password: str) -> str:
        return (
            # It has no password.
            "DROP USER IF EXISTS root@localhost;\n"
            f"CREATE USER {user}@localhost IDENTIFIED BY {literal(password)};\n"
            f"GRANT ALL PRIVILEGES ON *.* TO {user}@localhost WITH GRANT OPTION;\n"
        )

    def _argv(self) -> list[str]:
        programs = self._programs
        plugins = (programs.server.parent.resolve() / name for name in _PLUGINS)
        return [
            str(programs.server),
            "--no-defaults",
            f"--datadir={self._data}",
            f"--tmpdir={self._data}",
            f"--lc-messages-dir={programs.share}",
            f"--character-sets-dir={programs.share / 'charsets'}",
            *(f"--plugin-dir={path}" for path in plugins if path.is_dir()),
            "--skip-networking",
            "--mysqlx=OFF",
            "--skip-log-bin",
            "--skip-symbolic-links",
            "--local-infile=0",
            # Nothing may be read from or written to files by SQL.
            "--secure-file-priv=NULL",
            "--character-set-server=utf8mb4",
            "--collation-server=utf8mb4_0900_ai_ci",
            # The most that there is: what one server holds in a row, another has to take in a statement.
            "--max-allowed-packet=1G",
            "--performance-schema=OFF",
            "--innodb-buffer-pool-size=64M",
            "--loose-innodb-redo-log-capacity=32M",
            # Nobody relies on it before it was shut down.
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-doublewrite=0",
        ]
