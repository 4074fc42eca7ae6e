"""A database beside the app's: made empty, loaded by a role that can do no harm, then made like the app's.

The role exists for one import, owns this database and nothing else, and knows no other: a dump that tries to drop or
change the app's data is refused by the server itself. (As the app's own role, `COMMIT; DROP DATABASE app` worked even
inside a single transaction: PostgreSQL 15 to 18.) Where no role can be made, the manager itself loads, see
`own_rights`. Everything here is found again by the import's key.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import psycopg
import structlog
from psycopg import sql

from agent.engines.pg.aside.moving import extensions_of
from agent.engines.pg.belongings.carry_over import give_belongings
from agent.engines.pg.belongings.foreign_servers import ForeignServer, MadeServers, give_servers, make_servers
from agent.engines.pg.belongings.read import Belongings
from agent.engines.pg.belongings.system_grants import SystemGrants, give_system_grants
from agent.engines.pg.server.catalog import USER_SCHEMA, DatabaseFacts, ServerFacts, no_member
from agent.engines.pg.server.connection import Connection, Login, connect
from agent.engines.pg.server.names import Label, new_name, role_name, session_name
from agent.engines.pg.server.prepared import how_to_go_on
from agent.engines.pg.server.privileges import require_no_kept_schema, require_owner, take_back_privileges
from common.errors import AppBusyError, ServiceError, ToolFailedError
from common.wording import some_of

_log = structlog.get_logger(__name__)

PROVIDERS = {"c": "libc", "i": "icu", "b": "builtin"}
SPARE_CONNECTIONS = 2
"""Of the throw-away role, beside those that load: a check that it can log in, ANALYZE."""


async def create_role(
    connection: Connection, manager: Login, *, server: ServerFacts, label: Label, sessions: int
) -> Login:
    """Make the throw-away role.

    Args:
        connection: to the maintenance database, of the manager.
        manager: a superuser, or a role with CREATEDB and CREATEROLE.
        label: goes into its comment.
        sessions: how many connections will load.
    Returns:
        The role's way into the database that is to be made.
    """
    key = label.key
    login = replace(manager, database=new_name(key), user=role_name(key), password=secrets.token_urlsafe(24))
    await _create_role(connection, login, server=server, label=label, connections=sessions + SPARE_CONNECTIONS)
    return login


async def create_database(
    connection: Connection, login: Login, *, server: ServerFacts, old: DatabaseFacts, label: Label
) -> None:
    """Make an empty database with the old one's encoding, locale and tablespace.

    Args:
        connection: to the maintenance database, of the manager.
        login: its owner's way into it.
        label: goes into its comment.
    """
    key = label.key
    await connection.execute(create_statement(new_name(key), owner=login.user, like=old, major=server.major))
    await label_database(connection, label)
    # Now rather than after a long upload: pg_hba.conf may not let the role in.
    async with connect(login, application_name=session_name(key)):
        pass


async def write_money_alike(connection: Connection, key: str, *, like: DatabaseFacts, app_role: str) -> None:
    """Let values of type money be read in the new database as the app's sessions write them: 12,50 may be 1250
    elsewhere. It lasts as long as the load, after which the database gets the settings of the old one.
    """
    cursor = await connection.execute(
        """
        SELECT substr(entry, strpos(entry, '=') + 1)
          FROM pg_db_role_setting s CROSS JOIN unnest(s.setconfig) AS entry LEFT JOIN pg_roles r ON r.oid = s.setrole
         WHERE starts_with(entry, 'lc_monetary=') AND s.setdatabase IN (0, %s) AND (s.setrole = 0 OR r.rolname = %s)
         ORDER BY s.setrole = 0, s.setdatabase = 0 LIMIT 1
        """,
        [like.oid, app_role],
    )
    if found := await cursor.fetchone():
        statement = sql.SQL("ALTER DATABASE {} SET lc_monetary TO {}")
        await connection.execute(statement.format(sql.Identifier(new_name(key)), sql.Literal(found[0])))


async def _create_role(
    connection: Connection, login: Login, *, server: ServerFacts, label: Label, connections: int
) -> None:
    verifier = _verifier_of(connection, login)
    role = sql.Identifier(login.user)
    async with connection.transaction():
        await connection.execute(
            sql.SQL(
                "CREATE ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
                " CONNECTION LIMIT {} PASSWORD {}"
            ).format(role, sql.Literal(connections), sql.Literal(verifier))
        )
        await _label(connection, "ROLE", login.user, label)
        if not server.is_superuser:
            # Who is no superuser may give a database only to a role whose member it is.
            options = " WITH INHERIT TRUE, SET TRUE" if server.major >= 16 else ""
            await connection.execute(sql.SQL("GRANT {} TO CURRENT_USER" + options).format(role))


def _verifier_of(connection: Connection, login: Login) -> str:
    """So that a server that logs statements does not log the password. SCRAM whatever the server's default is, since a
    login by "md5" in pg_hba.conf takes it too.
    """
    password = (login.password or "").encode()
    return connection.pgconn.encrypt_password(password, login.user.encode(), b"scram-sha-256").decode()


async def let_in_again(connection: Connection, login: Login) -> None:
    """Undo what the role that loaded could do to itself, its password and its settings, so that it can go on.

    Args:
        connection: of the manager.
        login: the role's way, from `create_role`.
    """
    role = sql.Identifier(login.user)
    verifier = sql.Literal(_verifier_of(connection, login))
    for change in (
        sql.SQL("RESET ALL"),
        sql.SQL("IN DATABASE {} RESET ALL").format(sql.Identifier(login.database)),
        sql.SQL("PASSWORD {}").format(verifier),
    ):
        await connection.execute(sql.SQL("ALTER ROLE {} {}").format(role, change))


def create_statement(name: str, *, owner: str, like: DatabaseFacts, major: int) -> sql.Composed:
    """CREATE DATABASE with everything that cannot be changed later."""
    parts: list[sql.Composable] = [
        sql.SQL("CREATE DATABASE {} TEMPLATE template0 OWNER {}").format(sql.Identifier(name), sql.Identifier(owner)),
        sql.SQL("ENCODING {} LC_COLLATE {} LC_CTYPE {}").format(like.encoding, like.collate, like.ctype),
    ]
    if major >= 15:
        parts.append(sql.SQL("LOCALE_PROVIDER {}").format(sql.SQL(PROVIDERS[like.provider])))
    if like.provider == "i":
        parts.append(sql.SQL("ICU_LOCALE {}").format(like.locale))
    if like.provider == "b":
        parts.append(sql.SQL("BUILTIN_LOCALE {}").format(like.locale))
    if like.icu_rules:
        parts.append(sql.SQL("ICU_RULES {}").format(like.icu_rules))
    if like.tablespace != "pg_default":
        parts.append(sql.SQL("TABLESPACE {}").format(sql.Identifier(like.tablespace)))
    return sql.SQL(" ").join(parts)


async def untrusted_extensions(connection: Connection) -> Mapping[str, str]:
    """Extensions of the connected database that only a superuser can create, and the schemas that hold them."""
    cursor = await connection.execute("""
        SELECT e.extname, n.nspname
          FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
          LEFT JOIN pg_available_extension_versions v ON v.name = e.extname AND v.version = e.extversion
         WHERE coalesce(v.superuser AND NOT v.trusted, true)
    """)
    return dict(await cursor.fetchall())


@dataclass(frozen=True)
class Prepared:
    """What a new database has before anything is loaded."""

    extensions: frozenset[str] = frozenset()
    servers: MadeServers = field(default_factory=MadeServers)


async def prepare(
    manager: Login,
    *,
    server: ServerFacts,
    key: str,
    extensions: Mapping[str, str],
    foreign_servers: Sequence[ForeignServer],
) -> Prepared:
    """Give the new database what its role cannot make itself; who is no superuser cannot either.

    Args:
        extensions: from `untrusted_extensions`.
    """
    if not server.is_superuser:
        return Prepared()
    async with connect(manager.to(new_name(key)), application_name=session_name(key)) as connection:
        role = sql.Identifier(role_name(key))
        if server.major < 15:
            # Since 15 schema public belongs to the database's owner; dumps comment on it, some drop it.
            await connection.execute(sql.SQL("ALTER SCHEMA public OWNER TO {}").format(role))
        for name, schema in extensions.items():
            await connection.execute(
                sql.SQL("CREATE SCHEMA IF NOT EXISTS {} AUTHORIZATION {}").format(sql.Identifier(schema), role)
            )
            try:
                statement = sql.SQL("CREATE EXTENSION IF NOT EXISTS {} SCHEMA {} CASCADE")
                await connection.execute(statement.format(sql.Identifier(name), sql.Identifier(schema)))
            except psycopg.errors.DatabaseError as failure:
                raise ToolFailedError(
                    f"The extension {name} cannot be created in a new database: {failure.diag.message_primary}",
                    next_step="See whether its files are still installed in the server, and as which version.",
                ) from failure
        # With those that others need, which are as little the role's own.
        created = frozenset(await extensions_of(connection)) - {"plpgsql"}
        return Prepared(created, await make_servers(connection, foreign_servers, role=role_name(key)))


async def adopt(
    manager: Login,
    login: Login,
    *,
    belongings: Belongings,
    system_grants: SystemGrants,
    label: Label,
    superfluous_extensions: Collection[str],
    foreign_servers: MadeServers,
) -> list[str]:
    """Take the loaded database from the role that loaded it and make it like the old one; that role is gone afterwards.

    Args:
        login: the role's way, from `create_role`; or the manager's own.
        superfluous_extensions: those that `prepare` created and the archive did not ask for.
    Returns:
        Warnings, one sentence each.
    """
    key, old = label.key, belongings.database
    name, role = sql.Identifier(new_name(key)), sql.Identifier(login.user)
    has_role = login.user == role_name(key)
    async with connect(manager, application_name=session_name(key)) as connection:
        # Before anyone with more rights enters: settings that the upload's role made would apply to them.
        if has_role:
            await connection.execute(sql.SQL("ALTER ROLE {} NOLOGIN").format(role))
            await _end_sessions_of(connection, login.user)
        await open_again(connection, new_name(key), like=old)
    async with connect(manager.to(new_name(key)), application_name=session_name(key)) as connection:
        await _drop_extensions(connection, superfluous_extensions)
        if has_role:
            owner = sql.Identifier(belongings.content_owner)
            await connection.execute(sql.SQL("REASSIGN OWNED BY {} TO {}").format(role, owner))
            await connection.execute(sql.SQL("DROP OWNED BY {}").format(role))
        await connection.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(name, sql.Identifier(old.owner)))
        await label_database(connection, label)
        await require_no_kept_schema(connection)
        await require_owner(connection, belongings.content_owner if has_role else login.user)
        warnings = await take_back_privileges(connection)
        warnings += await give_servers(connection, foreign_servers)
        warnings += await give_belongings(connection, belongings, name=new_name(key))
        warnings += await give_system_grants(connection, system_grants)
        await _check_indexes(connection)
    if has_role:
        async with connect(manager, application_name=session_name(key)) as connection:
            await connection.execute(sql.SQL("DROP ROLE {}").format(role))
    return warnings


async def _drop_extensions(connection: Connection, names: Collection[str]) -> None:
    """Drop extensions but those that something else needs."""
    left = set(names)
    dropped = left
    while dropped:
        dropped = set()
        for name in left:
            with suppress(psycopg.errors.DependentObjectsStillExist):
                await connection.execute(sql.SQL("DROP EXTENSION IF EXISTS {}").format(sql.Identifier(name)))
                dropped.add(name)
        left -= dropped


async def open_again(connection: Connection, name: str, *, like: DatabaseFacts) -> None:
    """Undo what the role that loaded could do to its database as a whole, so that others can enter and drop it."""
    options = sql.SQL("IS_TEMPLATE {} ALLOW_CONNECTIONS true CONNECTION LIMIT -1").format(sql.Literal(like.is_template))
    for change in (sql.SQL("RESET ALL"), options):
        await connection.execute(sql.SQL("ALTER DATABASE {} {}").format(sql.Identifier(name), change))


async def _check_indexes(connection: Connection) -> None:
    cursor = await connection.execute(
        "SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class c ON c.oid = indexrelid"
        " WHERE NOT indisvalid AND c.relkind = 'i' ORDER BY 1"
    )
    if invalid := [name for (name,) in await cursor.fetchall()]:
        raise ToolFailedError(f"The server did not build these indexes: {some_of(invalid, 10)}.")


async def drop(connection: Connection, key: str) -> None:
    """Drop the new database and the role of an import, whatever there is of them.

    Args:
        connection: to the maintenance database, of the manager.
    Raises:
        AppBusyError: someone uses the database, whose sessions the manager may not end.
    """
    cursor = await connection.execute("SELECT rolname FROM pg_roles WHERE rolname = %s", [role_name(key)])
    has_role = await cursor.fetchone() is not None
    if has_role:
        # First, since a statement of the file may still run and make the database undroppable again.
        await connection.execute(sql.SQL("ALTER ROLE {} NOLOGIN").format(sql.Identifier(role_name(key))))
        await _end_sessions_of(connection, role_name(key))
    await drop_database(connection, new_name(key))
    if not has_role:
        # Who may not make roles may not even ask to drop one that is not there.
        return
    statement = sql.SQL("DROP ROLE {}").format(sql.Identifier(role_name(key)))
    try:
        await connection.execute(statement)
    except psycopg.errors.DependentObjectsStillExist:
        await connection.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(role_name(key))))
        await connection.execute(statement)


async def empty(login: Login) -> None:
    """Drop the tables of a database that is to go, where the disk is full or nearly so, as far as the server lets us.

    To drop a database the server first makes a checkpoint, and one that has no room for it stops; a table's room is
    free at once.

    Args:
        login: of the role that loaded them, or of who may drop them.
    """
    try:
        async with connect(login) as connection:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()"
            )
            await connection.execute("SET lock_timeout = '2s'")
            cursor = await connection.execute(f"""
                SELECT CASE c.relkind WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'TABLE' END, n.nspname, c.relname
                  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                 WHERE {USER_SCHEMA} AND c.relkind IN ('r', 'm') AND {no_member("pg_class", "c.oid")}
                 ORDER BY pg_total_relation_size(c.oid) DESC NULLS LAST
            """)  # noqa: S608
            for kind, *name in await cursor.fetchall():
                with suppress(psycopg.errors.DatabaseError):
                    statement = sql.SQL("DROP {} IF EXISTS {} CASCADE")
                    await connection.execute(statement.format(sql.SQL(kind), sql.Identifier(*name)))
    except ServiceError as failure:
        _log.warning("A database that is to be dropped could not be emptied.", action="empty", error=failure.text)


async def drop_database(connection: Connection, name: str) -> None:
    """Drop one of our databases, with its sessions.

    Raises:
        AppBusyError: someone uses it, whose sessions the manager may not end.
    """
    identifier = sql.Identifier(name)
    cursor = await connection.execute("SELECT FROM pg_database WHERE datname = %s AND datistemplate", [name])
    try:
        if await cursor.fetchone() is not None:
            # A file can make its database one, and the app's may be one.
            await connection.execute(sql.SQL("ALTER DATABASE {} IS_TEMPLATE false").format(identifier))
        drop = sql.SQL("DROP DATABASE IF EXISTS {}").format(identifier)
        try:
            await connection.execute(sql.SQL("{} WITH (FORCE)").format(drop))
        except psycopg.errors.InsufficientPrivilege:
            # A superuser's process is there. Autovacuum's, which it mostly is, the server ends itself when it is not to
            # use force; it waits 5 s for that.
            await connection.execute(drop)
    except psycopg.errors.ObjectInUse as failure:
        usually = "End what uses it (sessions of superusers, replication slots, subscriptions), then try again."
        raise AppBusyError(
            f"The database {name} cannot be dropped: {failure.diag.message_primary}",
            next_step=await how_to_go_on(connection, name, usually),
        ) from failure


async def end_own_sessions(connection: Connection, key: str) -> None:
    """End what an agent that was killed left running for this import, so that nothing changes behind our back."""
    cursor = await connection.execute(
        "SELECT pid FROM pg_stat_activity WHERE application_name = %s AND pid <> pg_backend_pid()", [session_name(key)]
    )
    await _end(connection, [pid for (pid,) in await cursor.fetchall()])


async def _end_sessions_of(connection: Connection, role: str) -> None:
    cursor = await connection.execute("SELECT pid FROM pg_stat_activity WHERE usename = %s", [role])
    await _end(connection, [pid for (pid,) in await cursor.fetchall()])


async def _end(connection: Connection, pids: list[int]) -> None:
    """Terminate sessions and wait until they are gone."""
    for pid in pids:
        await connection.execute("SELECT pg_terminate_backend(%s)", [pid])
    for _ in range(100):
        cursor = await connection.execute("SELECT FROM pg_stat_activity WHERE pid = ANY(%s)", [pids])
        if not pids or not await cursor.fetchall():
            return
        await asyncio.sleep(0.05)
    raise AppBusyError("A session of an earlier import does not end.", next_step="See pg_stat_activity.")


async def label_database(connection: Connection, label: Label) -> None:
    """Give the new database of an import its comment."""
    await _label(connection, "DATABASE", new_name(label.key), label)


async def _label(connection: Connection, kind: str, name: str, label: Label) -> None:
    await connection.execute(
        sql.SQL("COMMENT ON {} {} IS {}").format(sql.SQL(kind), sql.Identifier(name), sql.Literal(label.to_text()))
    )
