"""An SQL dump, loaded into a temporary cluster made with the PostgreSQL programs of this machine.

The cluster listens on a socket in a folder of its own and is gone with it. Root runs it as nobody, since PostgreSQL
refuses root; the dump is loaded as an import is: jailed, by a role that owns an empty database and nothing else.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import psycopg
from psycopg import sql

from agent.confining import may_become_nobody
from agent.engines.pg.aside.moving import extensions_of
from agent.engines.pg.exports.fingerprint import EVERYTHING, Fingerprint, Scope, fingerprint
from agent.engines.pg.loading.load import Deferred, load
from agent.engines.pg.loading.terms import LoadProgressOf, Terms
from agent.engines.pg.server.clients import DEFAULT_DIRECTORIES, Clients, environment_beside
from agent.engines.pg.server.connection import Login, connect
from agent.engines.pg.server.privileges import listed
from agent.engines.replay.programs import named_directories
from agent.engines.replay.request import Replayed, Request, chunks_of
from agent.jail import NOBODY, Jail
from agent.limits import Limits
from agent.processes import Child, Command, run, start
from agent.steps import Step, Unwatched
from common.errors import AppUnavailableError, ArchiveIncompatibleError, ToolFailedError

PROGRAMS_VARIABLE = "MATHISON_POSTGRESQL_BIN"
"""Directories with initdb and postgres, besides the usual ones, separated by colons."""
START_SECONDS = 60.0
_SUPERUSER = "mathison_replay"
_DATABASE = "replay"
_LOADER = "loader"
_PORT = 5432
_SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "autovacuum": "off",
    "max_wal_size": "1GB",
    "unix_socket_permissions": "0700",
}
_NO_WAY_OUT = (
    # The file's foreign servers are made, and nothing reaches them.
    """DO $do$ DECLARE wrapper name; BEGIN FOR wrapper IN SELECT fdwname FROM pg_foreign_data_wrapper LOOP
        EXECUTE format('ALTER FOREIGN DATA WRAPPER %I NO HANDLER', wrapper);
        EXECUTE format('GRANT USAGE ON FOREIGN DATA WRAPPER %I TO PUBLIC', wrapper);
    END LOOP; END $do$""",
    """DO $do$ DECLARE reaching regprocedure; BEGIN
    FOR reaching IN SELECT objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
                     WHERE d.refclassid = 'pg_extension'::regclass AND d.classid = 'pg_proc'::regclass
                       AND d.deptype = 'e' AND e.extname = 'dblink' LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', reaching);
    END LOOP; END $do$""",
)
"""The file's code runs here, whoever wrote it."""
_COUNTED = ("event trigger", "publication")
"""What a fingerprint counts of the kinds that are deferred."""
_COMMENT = re.compile(r"(?:\A|;\n)COMMENT\s+ON\s", re.IGNORECASE)
_VERSION = re.compile(r"\(PostgreSQL\) (\d+)")


@dataclass(frozen=True)
class Programs:
    """A server's programs."""

    directory: Path
    major: int

    def environment(self) -> Mapping[str, str]:
        """What a relocated installation needs to find its own libraries."""
        return environment_beside(self.directory)


async def replay(request: Request) -> Replayed:
    """The fingerprint of a database that this archive would make.

    Raises:
        ArchiveIncompatibleError: there is no PostgreSQL here that could take it.
        ServiceError: it cannot be loaded.
    """
    return await replay_dump(
        request.file,
        version=request.engine_version,
        encoding=request.details.get("encoding", ""),
        scope=EVERYTHING,
        extensions=[one.partition(" ")[0] for one in _listed(request.details, "extensions")],
        roles=_listed(request.details, "roles"),
    )


def _listed(details: Mapping[str, str], name: str) -> list[str]:
    """What a header lists; one that it had no room for is not told."""
    told, cut, _ = details.get(name, "").partition("…")
    found = told.split(", ")
    return [one for one in (found[:-1] if cut else found) if one]


async def replay_dump(
    file: str,
    *,
    version: str,
    encoding: str,
    scope: Scope,
    extensions: Sequence[str] = (),
    roles: Sequence[str] = (),
) -> Replayed:
    """The same for a dump that is part of another archive.

    Args:
        version: of the server that it comes from.
        encoding: of the database; empty: UTF8.
        extensions: that it makes.
        roles: that it may be about, in policies or user mappings; they are made, and nobody can log in as one.
    """
    programs = await _find_programs(int(version.partition(".")[0] or 0))
    encoding = encoding or "UTF8"
    with tempfile.TemporaryDirectory(prefix="mathison-verify-") as name:
        folder, spool = Path(name) / "cluster", Path(name) / "spool"
        spool.mkdir(mode=0o700)
        folder.mkdir(mode=0o700)
        if may_become_nobody():
            # The folder above is passed through, not listed.
            folder.parent.chmod(0o711)
            os.chown(folder, NOBODY, NOBODY)
        async with _cluster(programs, folder, encoding) as admin:
            login = await _make_database(admin, encoding)
            await _make_roles(admin, roles)
            load_file = partial(
                load,
                login=login,
                server_version_num=programs.major * 10_000,
                clients=Clients([programs.directory]),
                spool_directory=spool,
                limits=Limits(),
                progress=LoadProgressOf(Unwatched(), Step.TRANSFERRING),
            )
            made: frozenset[str] = frozenset()
            if untrusted := await _untrusted(admin, extensions, programs):
                # Where the file wants them is not in its header.
                read = await load_file(chunks_of(file), pre_created_extensions=frozenset(), terms=Terms(is_check=True))
                made = await _make_extensions(admin, {name: read.extensions.get(name, "") for name in untrusted})
            loaded = await load_file(chunks_of(file), pre_created_extensions=made)
            async with connect(admin.to(_DATABASE)) as connection:
                found = _with_deferred(await fingerprint(connection, scope), loaded.deferred)
                unproven = _about(loaded.deferred)
                return Replayed(found.comparable(scope.scheme), f"PostgreSQL {programs.major}", unproven)


async def _make_roles(admin: Login, names: Sequence[str]) -> None:
    async with connect(admin) as connection:
        for name in names:
            # Names of the server's own are reserved, and there.
            with suppress(psycopg.errors.DuplicateObject, psycopg.errors.ReservedName):
                await connection.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(name)))


async def _untrusted(admin: Login, names: Sequence[str], programs: Programs) -> list[str]:
    """Of these extensions, the ones that only a superuser may create.

    Raises:
        ArchiveIncompatibleError: the server has not all of them.
    """
    async with connect(admin) as connection:
        cursor = await connection.execute(
            "SELECT e.name, v.superuser AND NOT v.trusted FROM pg_available_extensions e"
            "  JOIN pg_available_extension_versions v ON v.name = e.name AND v.version = e.default_version"
            " WHERE e.name = ANY(%s)",
            [list(names)],
        )
        there = dict(await cursor.fetchall())
    if missing := sorted(set(names) - there.keys()):
        raise ArchiveIncompatibleError(
            f"To replay this archive, PostgreSQL {programs.major} of this machine needs what it does not have, the "
            f"{'extensions' if len(missing) > 1 else 'extension'} {listed(missing)}.",
            next_step=f"Install what is missing for {programs.directory}, or name the directory of a server that has "
            f"it in {PROGRAMS_VARIABLE}.",
        )
    return [name for name, is_untrusted in there.items() if is_untrusted]


async def _make_extensions(admin: Login, schemas: Mapping[str, str]) -> frozenset[str]:
    """Make extensions that only a superuser may make, each in its schema, with no way out of this server.

    Returns:
        All that are there now, with those that others need.
    Raises:
        ArchiveIncompatibleError: one cannot be made.
    """
    role = sql.Identifier(_LOADER)
    async with connect(admin.to(_DATABASE)) as connection:
        for name, schema in schemas.items():
            place = sql.Identifier(schema or "public")
            if not schema.startswith("pg_"):
                make = sql.SQL("CREATE SCHEMA IF NOT EXISTS {} AUTHORIZATION {}")
                await connection.execute(make.format(place, role))
            try:
                make = sql.SQL("CREATE EXTENSION IF NOT EXISTS {} SCHEMA {} CASCADE")
                await connection.execute(make.format(sql.Identifier(name), place))
            except psycopg.errors.DatabaseError as failure:
                raise ArchiveIncompatibleError(
                    f"To replay this archive, the extension {name} is needed, and PostgreSQL of this machine cannot "
                    f"create it: {failure.diag.message_primary}."
                ) from failure
        for statement in _NO_WAY_OUT:
            await connection.execute(statement)
        return frozenset(await extensions_of(connection))


def _about(deferred: Sequence[Deferred]) -> str:
    if not deferred:
        return ""
    names = listed([f"{one.kind} {one.name}" for one in deferred])
    return f"Only a superuser may make these wholly, so nothing but their number is compared: {names}."


def _with_deferred(found: Fingerprint, deferred: Sequence[Deferred]) -> Fingerprint:
    """With what the archive makes and only a superuser could: it is counted and not made, since its code may be bad."""
    counts = Counter(found.objects)
    for one in deferred:
        if one.kind in _COUNTED and one.sql.lstrip().upper().startswith("CREATE"):
            counts[one.kind] += 1
        counts["comment"] += _COMMENT.search(one.sql) is not None
    return msgspec.structs.replace(found, objects=dict(sorted((+counts).items())))


async def _find_programs(major: int) -> Programs:
    """Of the same major, or else of the lowest newer one."""
    usual = sorted(Path("/").glob(DEFAULT_DIRECTORIES.lstrip("/")))
    named = [Path(folder) for folder in named_directories(PROGRAMS_VARIABLE)]
    on_path = [Path(found).resolve().parent] if (found := shutil.which("postgres")) else []
    there = [path for path in [*named, *on_path, *usual] if (path / "initdb").exists() and (path / "postgres").exists()]
    versions = [Programs(path, await _major_of(path)) for path in dict.fromkeys(there)]
    if fitting := sorted((one for one in versions if one.major >= major), key=lambda one: one.major):
        return fitting[0]
    have = f"only of version {', '.join(str(one.major) for one in versions)}" if versions else "none"
    raise ArchiveIncompatibleError(
        f"To replay this archive, the server programs of PostgreSQL {major} or newer are needed, and there are {have}.",
        next_step=f"Install them, or name their directory in {PROGRAMS_VARIABLE}.",
    )


async def _major_of(directory: Path) -> int:
    try:
        said = await run(Command([str(directory / "postgres"), "--version"]))
    except ToolFailedError:
        return 0
    found = _VERSION.search(said.decode(errors="replace"))
    return int(found[1]) if found else 0


@asynccontextmanager
async def _cluster(programs: Programs, folder: Path, encoding: str) -> AsyncIterator[Login]:
    """A server for the time of the block; its superuser's way in."""
    jail = Jail(file_size_bytes=None, may_fork=True)
    data = folder / "data"
    make = [str(programs.directory / "initdb"), "--no-sync", "--no-locale", "--auth=trust", f"--encoding={encoding}"]
    await run(Command([*make, f"--username={_SUPERUSER}", str(data)], jail=jail, environment=programs.environment()))
    settings = {**_SETTINGS, "unix_socket_directories": str(folder)}
    argv = [str(programs.directory / "postgres"), "-D", str(data), *(f"--{k}={v}" for k, v in settings.items())]
    async with start(Command(argv, jail=jail, environment=programs.environment())) as server:
        login = Login(str(folder), _PORT, "postgres", _SUPERUSER)
        await _until_ready(login, server)
        yield login


async def _until_ready(login: Login, server: Child) -> None:
    failure: AppUnavailableError | None = None
    try:
        async with asyncio.timeout(START_SECONDS):
            while server.is_running:
                try:
                    async with connect(login):
                        return
                except AppUnavailableError as error:
                    failure = error
                await asyncio.sleep(0.05)
    except TimeoutError:
        pass
    raise ToolFailedError("The temporary PostgreSQL did not start.") from failure


async def _make_database(admin: Login, encoding: str) -> Login:
    """An empty one; the way in of its owner, who may do nothing else."""
    name, role = sql.Identifier(_DATABASE), sql.Identifier(_LOADER)
    async with connect(admin) as connection:
        password = secrets.token_hex(16)
        await connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, password))
        await connection.execute(
            sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING {}").format(name, role, encoding)
        )
    async with connect(admin.to(_DATABASE)) as connection:
        await connection.execute(sql.SQL("ALTER SCHEMA public OWNER TO {}").format(role))
    return Login(admin.host, admin.port, _DATABASE, _LOADER, password)
