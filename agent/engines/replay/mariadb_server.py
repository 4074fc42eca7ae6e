"""A dump of MariaDB or MySQL, loaded into a temporary server made with the programs of this machine.

It is loaded as an import is: judged statement by statement, in a jail, by an account that may do nothing elsewhere.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.confining import may_become_nobody
from agent.engines.mariadb import names
from agent.engines.mariadb.imports import loading
from agent.engines.mariadb.own.mariadb import USUAL_DIRECTORIES, OwnServer, ServerPrograms, find_server
from agent.engines.mariadb.own.mysql import OwnMysql, find_mysql
from agent.engines.mariadb.server.catalog import Schema
from agent.engines.mariadb.server.settings import Login
from agent.engines.replay.programs import named_directories
from agent.jail import NOBODY
from agent.limits import Limits
from common.errors import AppUnavailableError, ArchiveIncompatibleError

PROGRAMS_VARIABLE = "MATHISON_MARIADB_BIN"
"""Directories with mariadbd, mariadb and mariadb-dump, or mysqld, mysql and mysqldump, besides the usual ones,
separated by colons.
"""
_KEY = "0" * 12
_EMPTY = Schema(version="", charset="utf8mb4", collation="utf8mb4_general_ci")


@dataclass(frozen=True)
class LoadedDump:
    """
    Attributes:
        login: of who may read it.
        engine: for a person.
    """

    login: Login
    schema: str
    engine: str


@asynccontextmanager
async def loaded(
    chunks: AsyncIterator[bytes], folder: Path, *, is_mysql: bool = False, takes_programs: bool = False
) -> AsyncIterator[LoadedDump]:
    """A dump in a server that is there for the time of the block.

    Args:
        chunks: the dump; may be compressed.
        folder: empty, for the server's data; the caller deletes it.
        is_mysql: which of both.
        takes_programs: whether views, triggers, routines and events are taken, or refused.
    Raises:
        ArchiveIncompatibleError: there is no such server here.
        ServiceError: it cannot be loaded.
    """
    programs = await (_find_mysql() if is_mysql else _find_mariadb())
    if may_become_nobody():
        # Passed through by the server's user, not listed.
        folder.chmod(0o711)
    server = (OwnMysql if is_mysql else OwnServer)(programs, folder / "data", uid=NOBODY, folder=folder)
    await server.make()
    async with server.running() as admin:
        loader = await loading.make_beside(admin, _EMPTY, _KEY)
        await loading.load(admin, loader, chunks, key=_KEY, limits=Limits(), takes_programs=takes_programs)
        yield LoadedDump(admin, names.new_schema(_KEY), f"{server.name} {'.'.join(map(str, programs.release))}")


async def _find_mysql() -> ServerPrograms:
    on_path = [os.path.dirname(found)] if (found := shutil.which("mysql")) else []
    named = named_directories(PROGRAMS_VARIABLE)
    directories = (*named, *on_path, "/usr/bin")
    # Beside programs of MariaDB's, `mysql` is one of these, too.
    clients = next((part for part in directories if _has(part, "mysqldump") and not _has(part, "mariadb")), "")
    try:
        return await find_mysql(Path(clients or "/usr/bin"), (*named, *on_path, *USUAL_DIRECTORIES))
    except AppUnavailableError as failure:
        raise ArchiveIncompatibleError(
            "To replay this archive, the programs of a MySQL server are needed (mysqld, mysql, mysqldump), and they "
            "are not all here.",
            next_step=f"Install them, or name the programs' directories in {PROGRAMS_VARIABLE}.",
        ) from failure


def _has(directory: str, program: str) -> bool:
    return os.access(f"{directory}/{program}", os.X_OK)


async def _find_mariadb() -> ServerPrograms:
    named = named_directories(PROGRAMS_VARIABLE)
    on_path = [os.path.dirname(found)] if (found := shutil.which("mariadb")) else []
    clients = next((part for part in (*named, *on_path, "/usr/bin") if _has(part, "mariadb-dump")), "")
    try:
        return await find_server(Path(clients or "/usr/bin"), (*named, *on_path, *USUAL_DIRECTORIES))
    except AppUnavailableError as failure:
        raise ArchiveIncompatibleError(
            "To replay this archive, the programs of a MariaDB server are needed (mariadbd with the SQL of its system "
            "tables, mariadb, mariadb-dump), and they are not all here.",
            next_step="Install the packages mariadb-server-core and mariadb-client-core, or name the programs' "
            f"directories in {PROGRAMS_VARIABLE}.",
        ) from failure
