"""Foreign servers and user mappings: those of the app's database, given to its new one. A file brings none.

A file could name any host, and its code runs while it is loaded. So a superuser makes the servers anew before, as they
are in the app's database, where someone decided for them once; and their wrappers have no handler until the role that
loads is gone, so that no foreign table of the file is reached. Passwords go from one database to the other and nowhere
else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import psycopg
from psycopg import sql

from agent.engines.pg.belongings.carry_over import grants_on
from agent.engines.pg.belongings.read import Grant
from agent.engines.pg.server.catalog import no_member
from agent.engines.pg.server.connection import Connection
from common.errors import ToolFailedError

_UNLOGGED = """
    SELECT set_config(name, value, true) FROM (VALUES
        ('log_statement', 'none'), ('log_min_error_statement', 'panic'), ('log_min_duration_statement', '-1'),
        ('log_min_duration_sample', '-1'), ('log_transaction_sample_rate', '0'), ('log_duration', 'off'),
        ('pg_stat_statements.track_utility', 'off'), ('pgaudit.log', 'none')
    ) AS wanted (name, value) WHERE name IN (SELECT name FROM pg_settings)
"""
"""Options may be passwords, and a server may log statements."""
_OPTIONS = "(SELECT coalesce(jsonb_object_agg(option_name, option_value), '{{}}') FROM pg_options_to_table({}))"
_SERVERS = f"""
    SELECT s.srvname, w.fdwname, s.srvtype, s.srvversion, pg_get_userbyid(s.srvowner),
           obj_description(s.oid, 'pg_foreign_server'), {_OPTIONS.format("s.srvoptions")},
           (SELECT coalesce(jsonb_agg(jsonb_build_array(x.privilege_type, r.rolname, x.is_grantable)), '[]')
              FROM aclexplode(s.srvacl) AS x LEFT JOIN pg_roles r ON r.oid = x.grantee
             WHERE x.grantee <> s.srvowner),
           (SELECT coalesce(jsonb_agg(jsonb_build_array(r.rolname, {_OPTIONS.format("m.umoptions")})), '[]')
              FROM pg_user_mapping m LEFT JOIN pg_roles r ON r.oid = m.umuser WHERE m.umserver = s.oid)
      FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw
     WHERE {no_member("pg_foreign_server", "s.oid")} AND NOT {no_member("pg_foreign_data_wrapper", "w.oid")}
     ORDER BY 1
"""  # noqa: S608  # conditions of catalog.py


@dataclass(frozen=True)
class ForeignServer:
    """A server of the app's database whose wrapper comes with an extension.

    Attributes:
        mappings: for each role, None for everyone, the options of its user mapping; may be passwords, as the server's.
    """

    name: str
    wrapper: str
    type: str | None
    version: str | None
    owner: str
    comment: str | None
    options: Mapping[str, str] = field(repr=False)
    grants: Sequence[Grant]
    mappings: Sequence[tuple[str | None, Mapping[str, str]]] = field(repr=False)


@dataclass(frozen=True)
class MadeServers:
    """What `make_servers` made in a new database.

    Attributes:
        handlers: numbers of the functions that are to be the wrappers' handlers again.
    """

    servers: Sequence[ForeignServer] = ()
    handlers: Mapping[str, int] = field(default_factory=dict)

    @property
    def names(self) -> frozenset[str]:
        return frozenset(server.name for server in self.servers)


async def read_servers(connection: Connection) -> list[ForeignServer]:
    """Those of the connected database; only a superuser may read all of their user mappings."""
    cursor = await connection.execute(_SERVERS)
    return [
        ForeignServer(*(*facts, [Grant(*one) for one in grants], [tuple(one) for one in mappings]))
        for *facts, grants, mappings in await cursor.fetchall()
    ]


async def make_servers(connection: Connection, servers: Sequence[ForeignServer], *, role: str) -> MadeServers:
    """Make servers in a new database for who loads it, without user mappings and out of reach.

    Args:
        connection: of a superuser; the wrappers are there.
        role: may make foreign tables of them.
    Raises:
        ToolFailedError: one cannot be made.
    """
    handlers: dict[str, int] = {}
    for server in servers:
        name, wrapper = sql.Identifier(server.name), sql.Identifier(server.wrapper)
        try:
            await _run_unlogged(
                connection,
                sql.SQL("CREATE SERVER {}{}{} FOREIGN DATA WRAPPER {}{}").format(
                    name,
                    sql.SQL("") if server.type is None else sql.SQL(" TYPE {}").format(server.type),
                    sql.SQL("") if server.version is None else sql.SQL(" VERSION {}").format(server.version),
                    wrapper,
                    _options(server.options),
                ),
            )
        except psycopg.errors.DatabaseError as failure:
            raise ToolFailedError(
                f"The foreign server {server.name} cannot be made in a new database: {failure.diag.message_primary}",
                next_step="See whether its options are still those that its wrapper takes.",
            ) from failure
        await connection.execute(sql.SQL("GRANT USAGE ON FOREIGN SERVER {} TO {}").format(name, sql.Identifier(role)))
        cursor = await connection.execute(
            "SELECT fdwhandler::bigint FROM pg_foreign_data_wrapper WHERE fdwname = %s AND fdwhandler <> 0",
            [server.wrapper],
        )
        if row := await cursor.fetchone():
            handlers[server.wrapper] = row[0]
            await connection.execute(sql.SQL("ALTER FOREIGN DATA WRAPPER {} NO HANDLER").format(wrapper))
    return MadeServers(servers, handlers)


async def give_servers(connection: Connection, made: MadeServers) -> list[str]:
    """Make the servers of a loaded database like the app's: reachable, with user mappings, owners and grants.

    Args:
        connection: of a superuser, once the role that loaded can do nothing any more.
    Returns:
        Warnings, one sentence each.
    """
    for wrapper, number in made.handlers.items():
        # By number: a file may have renamed the schema of the function, and made another.
        cursor = await connection.execute("SELECT %s::oid::regprocedure::text", [number])
        [signature] = await cursor.fetchone() or ("",)
        handler = sql.SQL(signature.removesuffix("()"))  # quoted by the server
        again = sql.SQL("ALTER FOREIGN DATA WRAPPER {} HANDLER {}")
        await connection.execute(again.format(sql.Identifier(wrapper), handler))
    warnings = []
    for server in made.servers:
        for what, statement in _belongings_of(server):
            try:
                await _run_unlogged(connection, statement)
            except (psycopg.errors.ProgrammingError, psycopg.errors.DataError) as failure:
                warnings.append(f"{what} could not be carried over: {failure.diag.message_primary}")
    return warnings


def _belongings_of(server: ForeignServer) -> list[tuple[str, sql.Composed]]:
    """Statements, and what each is about; user mappings first, while the server is the superuser's."""
    name, what = sql.Identifier(server.name), f"foreign server {server.name}"
    found = []
    for role, options in server.mappings:
        who = sql.Identifier(role) if role is not None else sql.SQL("PUBLIC")
        statement = sql.SQL("CREATE USER MAPPING FOR {} SERVER {}{}").format(who, name, _options(options))
        found.append((f"The user mapping of {role or 'PUBLIC'} for {what}", statement))
    comment = sql.SQL("COMMENT ON SERVER {} IS {}").format(name, sql.Literal(server.comment))
    owner = sql.SQL("ALTER SERVER {} OWNER TO {}").format(name, sql.Identifier(server.owner))
    found += [(f"The comment of {what}", comment), (f"The owner of {what}", owner)]
    gifts = grants_on(sql.SQL("FOREIGN SERVER {}").format(name), server.grants, what)
    return found + [(gift.what, gift.statement) for gift in gifts]


def _options(options: Mapping[str, str]) -> sql.Composable:
    if not options:
        return sql.SQL("")
    each = [sql.SQL("{} {}").format(sql.Identifier(name), value) for name, value in options.items()]
    return sql.SQL(" OPTIONS ({})").format(sql.SQL(", ").join(each))


async def _run_unlogged(connection: Connection, statement: sql.Composed) -> None:
    async with connection.transaction():
        await connection.execute(_UNLOGGED)
        await connection.execute(statement)
