"""A MariaDB server of the agent's own, on a data directory that it makes: to build one for an app whose server is a
child of the app, or to look into a dump.

It listens on a socket in a folder of its own only, and what it leaves is the data directory of a server that was shut
down in an orderly way, or nothing that counts. Needs `mariadbd` and the SQL that comes with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.confining import may_become_nobody
from agent.engines.mariadb.server.client import literal, query
from agent.engines.mariadb.server.settings import Login
from agent.jail import Jail
from agent.processes import Child, Command, run, start
from common.errors import AppUnavailableError, ToolFailedError

USUAL_DIRECTORIES = ("/usr/sbin", "/usr/bin", "/usr/libexec")
BASE_BYTES = 128 << 20
"""Of a data directory with nothing in it, at most: system tables, undo and redo logs."""
_SHARES = ("../share/mysql", "../share/mariadb", "../usr/share/mysql", "../usr/share/mariadb")
_SYSTEM_SQL = ("system_tables", "performance_tables", "system_tables_data")
_ADMIN = "mathison_own"
_START_SECONDS = 120.0
_STOP_SECONDS = 600.0
"""For writing all that is in memory; the data of one that was cut off counts for nothing."""
_LOOK_SECONDS = 0.05
_LONGEST_FOLDER = 80
"""A socket's path has room for 107 bytes."""
_VERSION = re.compile(r"\bVer (\d+)\.(\d+)\.\d+\S*-MariaDB")


@dataclass(frozen=True)
class ServerPrograms:
    """
    Attributes:
        release: major and minor number of `server`.
        share: folder with its messages, character sets and the SQL of its system tables.
        clients: directory of `mariadb` and `mariadb-dump`.
    """

    server: Path
    share: Path
    clients: Path
    release: tuple[int, int]


async def find_server(clients: Path, directories: Sequence[str] = USUAL_DIRECTORIES) -> ServerPrograms:
    """The first server there is, beside the clients or in the usual places.

    Raises:
        AppUnavailableError: there is none.
    """
    found = await first_server("mariadbd", clients, directories, shares=_SHARES, is_share=_has_sql, version=_VERSION)
    if found:
        return found
    raise AppUnavailableError(
        "The agent has no MariaDB server of its own (mariadbd), which is needed to build a database beside the app's.",
        next_step="Install the package mariadb-server-core where the agent runs.",
    )


async def first_server(
    program: str,
    clients: Path,
    directories: Sequence[str],
    *,
    shares: Sequence[str],
    is_share: Callable[[Path], bool],
    version: re.Pattern[str],
) -> ServerPrograms | None:
    """The first that runs and has its files beside it; None: there is none.

    Args:
        shares: where its files may be, seen from its own directory.
        version: finds two numbers in what it says of itself.
    """
    for directory in (clients, *map(Path, directories)):
        server = directory / program
        if not os.access(server, os.X_OK):
            continue
        share = next((path for name in shares if is_share(path := directory.resolve() / name)), None)
        try:
            said = (await run(Command([str(server), "--no-defaults", "--version"]))).decode(errors="replace")
        except ToolFailedError:
            continue
        if share and (found := version.search(said)):
            return ServerPrograms(server, share, clients, (int(found[1]), int(found[2])))
    return None


class OwnServer:
    """One data directory and the server for it.

    Args:
        data: the directory; `make` makes it, below one that its user may pass through.
        uid: who owns it and whom the server runs as, when we are root and may change our user; None: we ourselves.
        folder: for the socket's, passed through as well; when its path is too long, the system's temporary one.
    """

    name = "MariaDB"

    def __init__(self, programs: ServerPrograms, data: Path, *, uid: int | None, folder: Path) -> None:
        self._programs = programs
        self._data = data
        self._uid = uid if may_become_nobody() else None
        self._folder = folder if len(str(folder)) <= _LONGEST_FOLDER else None
        self._jail = Jail(file_size_bytes=None, may_fork=True, uid=self._uid)

    async def make(self, *, socket_user: str = "root") -> None:
        """As mariadb-install-db does, without its test database and anonymous accounts.

        Args:
            socket_user: of the operating system, who may do all over the socket without a password, as root may.
        """
        self._data.mkdir(mode=0o755)
        self._give(self._data)
        who = literal(socket_user)
        opening = f"CREATE DATABASE mysql;\nUSE mysql;\nSET @auth_root_socket={who};\n"
        sql = "\n".join([opening, *(_sql_file(self._programs.share, name).read_text() for name in _SYSTEM_SQL)])
        await run(Command([*self._argv(), "--bootstrap"], jail=self._jail), input_bytes=sql.encode())

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Login]:
        """The server for the time of the block; who may do all in it.

        When the block ends normally the server has shut down in an orderly way, and the account is gone.

        Raises:
            ToolFailedError: it did not start, or did not end as it should; the data directory is of no use then.
        """
        with tempfile.TemporaryDirectory(prefix="mathison-", dir=self._folder) as name:
            folder = Path(name)
            folder.chmod(0o711)
            login = Login(str(folder / "socket"), 0, _ADMIN, secrets.token_hex(24), self._programs.clients)
            opening = folder / "opening.sql"
            opening.touch(mode=0o600)
            opening.write_text(self._opening(_ADMIN, login.password))
            self._give(opening)
            self._give(folder)
            argv = [*self._argv(), f"--socket={login.host}", f"--init-file={opening}", f"--pid-file={folder / 'pid'}"]
            async with start(Command(argv, jail=self._jail)) as server:
                await self._until_ready(login, server)
                yield login
                await query(login, f"DROP USER {_ADMIN}@localhost; SHUTDOWN;", is_apart=True)
                async with asyncio.timeout(_STOP_SECONDS):
                    await server.check()

    def _opening(self, user: str, password: str) -> str:
        """What makes an account that may do all."""
        return (
            f"CREATE OR REPLACE USER {user}@localhost IDENTIFIED BY {literal(password)};\n"
            f"GRANT ALL PRIVILEGES ON *.* TO {user}@localhost WITH GRANT OPTION;\n"
        )

    def _argv(self) -> list[str]:
        share = self._programs.share
        return [
            str(self._programs.server),
            "--no-defaults",
            f"--datadir={self._data}",
            # In a shared folder, a server that starts deletes the temporary tables of those that run: the app's, too.
            f"--tmpdir={self._data}",
            f"--lc-messages-dir={share}",
            f"--character-sets-dir={share / 'charsets'}",
            "--skip-networking",
            "--skip-symbolic-links",
            "--local-infile=0",
            # Nothing may be read from or written to files by SQL.
            f"--secure-file-priv={share / 'charsets'}",
            "--character-set-server=utf8mb4",
            "--collation-server=utf8mb4_general_ci",
            # The most that there is: what one server holds in a row, another has to take in a statement.
            "--max-allowed-packet=1G",
            "--innodb-buffer-pool-size=64M",
            "--innodb-log-file-size=32M",
            # Nobody relies on it before it was shut down.
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-doublewrite=0",
            "--debug-no-sync",
        ]

    def _give(self, path: Path) -> None:
        if self._uid is not None:
            os.chown(path, self._uid, self._uid)

    async def _until_ready(self, login: Login, server: Child) -> None:
        failure: AppUnavailableError | None = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START_SECONDS):
                while server.is_running:
                    try:
                        await query(login, "SELECT 1;")
                    except AppUnavailableError as error:
                        failure = error
                        await asyncio.sleep(_LOOK_SECONDS)
                    else:
                        return
        raise ToolFailedError(f"The agent's own {self.name} did not start: {server.stderr_tail[-500:]}") from failure


def _sql_file(share: Path, name: str) -> Path:
    """Its name has changed with the server's."""
    path = share / f"mariadb_{name}.sql"
    return path if path.exists() else share / f"mysql_{name}.sql"


def _has_sql(share: Path) -> bool:
    return all(_sql_file(share, name).exists() for name in _SYSTEM_SQL)
