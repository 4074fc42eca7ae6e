"""What a server and a database are, read from the catalogs: for describing, for an archive's header, for comparing.

User objects are those outside the system schemas that no extension owns, as pg_dump sees it. No name is qualified: our
connections have an empty search_path, so only what is built in can be meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import psycopg

from agent.engines.pg.server.connection import Connection

KEPT_SCHEMA_NAME = "mathison_(?:kept|drop)_[0-9a-f]{12}_[0-9]+"
KEPT_SCHEMA = f"^{KEPT_SCHEMA_NAME}$"
"""Pattern of schemas with what an import within the database keeps; that is not the app's any more. The only word on
that: what an import refuses to bring is what no export holds and no comparison sees.
"""
WITHOUT_GRANTS = {
    "OPERATOR": ("pg_operator", "opr"),
    "OPERATOR CLASS": ("pg_opclass", "opc"),
    "OPERATOR FAMILY": ("pg_opfamily", "opf"),
    "COLLATION": ("pg_collation", "coll"),
    "CONVERSION": ("pg_conversion", "con"),
    "TEXT SEARCH DICTIONARY": ("pg_ts_dict", "dict"),
    "TEXT SEARCH CONFIGURATION": ("pg_ts_config", "cfg"),
    "STATISTICS": ("pg_statistic_ext", "stx"),
}
"""Kinds of things in schemas that have an owner and no privileges: catalog, and what its columns `…namespace`,
`…owner` and `…name` begin with."""
USER_SCHEMA = rf"n.nspname !~ '^(pg_|information_schema$)|{KEPT_SCHEMA}'"
"""Condition on pg_namespace n."""
ROWS_ABOUT = """(CASE WHEN pg_stat_get_tuples_inserted(c.oid) + pg_stat_get_tuples_deleted(c.oid) > 0
     THEN pg_stat_get_live_tuples(c.oid) ELSE greatest(c.reltuples, 0) END)::bigint"""
"""How many rows a pg_class c has: as sessions counted what they wrote or, where a crash lost that, as ANALYZE did."""
_SIZE_WAIT_MILLISECONDS = 300
MOST_DETAIL_BYTES = 1000
"""A header's detail holds 1 KiB."""

_HARMLESS_ROLES = [
    "pg_checkpoint",
    "pg_maintain",
    "pg_monitor",
    "pg_read_all_data",
    "pg_read_all_settings",
    "pg_read_all_stats",
    "pg_signal_autovacuum_worker",
    "pg_signal_backend",
    "pg_stat_scan_tables",
    "pg_use_reserved_connections",
    "pg_write_all_data",
]
"""Of the server's own, those that change nothing outside of the connected database that lasts."""


def no_member(catalog: str, oid: str) -> str:
    """SQL: the object belongs to no extension."""
    return (
        f"NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = '{catalog}'::regclass"
        f" AND e.objid = {oid} AND e.deptype = 'e')"
    )


@dataclass(frozen=True)
class ServerFacts:
    """The server, seen by one role."""

    version_num: int
    version: str
    """For example "17.10"."""
    is_replica: bool
    role: str
    is_superuser: bool
    may_create_databases: bool
    may_create_roles: bool

    @property
    def major(self) -> int:
        return self.version_num // 10_000


async def look_at_server(connection: Connection) -> ServerFacts:
    """The server and what the connected role may do there."""
    cursor = await connection.execute("""
        SELECT current_setting('server_version_num')::int,
               split_part(current_setting('server_version'), ' ', 1),
               pg_is_in_recovery(), r.rolname, r.rolsuper, r.rolcreatedb, r.rolcreaterole
          FROM pg_roles r WHERE r.rolname = current_user
    """)
    row = await cursor.fetchone()
    if row is None:
        raise RuntimeError("a session without a role")
    return ServerFacts(*row)


async def reaching_rights(connection: Connection, *, out_of_transaction: bool) -> list[tuple[str, str]]:
    """What code could reach that runs with the rights of the role that logged in, besides what is the role's own.

    Args:
        out_of_transaction: only what a transaction that is taken back does not take back.
    Returns:
        Each as words that follow "is", and the statement that takes it away; that is empty for what comes by another.
    """
    cursor = await connection.execute(
        """
        SELECT CASE WHEN r.rolname = session_user THEN 'one that may replicate' ELSE 'a member of ' || r.rolname END,
               CASE WHEN r.rolname = session_user THEN format('ALTER ROLE %%I NOREPLICATION;', r.rolname)
                    WHEN EXISTS (SELECT FROM pg_auth_members m WHERE m.roleid = r.oid AND m.member = me.oid)
                    THEN format('REVOKE %%I FROM %%I;', r.rolname, session_user) ELSE '' END
          FROM pg_roles r JOIN pg_roles me ON me.rolname = session_user
         WHERE pg_has_role(session_user, r.oid, 'MEMBER')
           AND r.rolname <> 'pg_database_owner' AND r.rolname <> ALL(%s)
           AND CASE WHEN r.rolname = session_user THEN r.rolreplication
                    ELSE NOT %s OR r.rolsuper OR r.rolreplication OR starts_with(r.rolname, 'pg_') END
         ORDER BY r.rolname
        """,
        [_HARMLESS_ROLES, out_of_transaction],
    )
    return await cursor.fetchall()


@dataclass(frozen=True)
class DatabaseFacts:
    """One database, as far as it has to be known to make another like it.

    Attributes:
        locale: of the provider: ICU's or the built-in one's; None for libc.
        acl: privileges as in pg_database.datacl, None for the default ones.
        is_owned: the connected role has the owner's rights.
    """

    oid: int
    name: str
    owner: str
    is_owned: bool
    encoding: str
    collate: str
    ctype: str
    provider: str
    locale: str | None
    icu_rules: str | None
    tablespace: str
    connection_limit: int
    is_template: bool
    acl: str | None
    comment: str | None


async def look_at_database(connection: Connection, name: str) -> DatabaseFacts | None:
    """A database of the server that the connection leads to; None: there is none of this name."""
    columns = await connection.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'pg_database'::regclass AND attnum > 0"
    )
    there = {column for (column,) in await columns.fetchall()}
    # datlocprovider since 15; daticulocale 15 and 16, datlocale since 17; daticurules since 16.
    provider = "d.datlocprovider" if "datlocprovider" in there else "'c'"
    locale = next((f"d.{column}" for column in ("datlocale", "daticulocale") if column in there), "NULL")
    rules = "d.daticurules" if "daticurules" in there else "NULL"
    cursor = await connection.execute(
        f"""
        SELECT d.oid, d.datname, pg_get_userbyid(d.datdba),
               pg_has_role(current_user, d.datdba, 'USAGE'),
               pg_encoding_to_char(d.encoding), d.datcollate, d.datctype, {provider}, {locale}, {rules},
               t.spcname, d.datconnlimit, d.datistemplate, d.datacl::text, shobj_description(d.oid, 'pg_database')
          FROM pg_database d JOIN pg_tablespace t ON t.oid = d.dattablespace
         WHERE d.datname = %s
        """,  # noqa: S608  # column names of this module
        [name],
    )
    row = await cursor.fetchone()
    return DatabaseFacts(*row) if row else None


async def count_objects(connection: Connection) -> dict[str, int]:
    """User objects of the connected database by kind, and large objects."""
    cursor = await connection.execute(f"""
        SELECT kind, count(*) FROM (
            SELECT CASE c.relkind WHEN 'r' THEN 'tables' WHEN 'p' THEN 'tables' WHEN 'v' THEN 'views'
                        WHEN 'm' THEN 'materialized_views' WHEN 'S' THEN 'sequences' WHEN 'f' THEN 'foreign_tables'
                        ELSE 'indexes' END AS kind
              FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE {USER_SCHEMA} AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'i', 'I')
               AND {no_member("pg_class", "c.oid")}
            UNION ALL
            SELECT 'functions' FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
             WHERE {USER_SCHEMA} AND {no_member("pg_proc", "p.oid")}
            UNION ALL
            SELECT 'large_objects' FROM pg_largeobject_metadata
        ) AS found GROUP BY kind
    """)  # noqa: S608  # conditions of this module
    return {"tables": 0} | dict(sorted(await cursor.fetchall()))


async def describe_content(connection: Connection) -> Mapping[str, str]:
    """What a person may want to know of the connected database besides counts: names, never values of settings."""
    cursor = await connection.execute("""
        SELECT (SELECT string_agg(extname || ' ' || extversion, ', ' ORDER BY extname)
                  FROM pg_extension WHERE extname <> 'plpgsql'),
               (SELECT string_agg(DISTINCT split_part(setting, '=', 1), ', ')
                  FROM pg_db_role_setting s, unnest(s.setconfig) AS setting
                 WHERE s.setdatabase = d.oid),
               (SELECT string_agg(DISTINCT r.rolname, ', ')
                  FROM pg_shdepend h JOIN pg_roles r ON r.oid = h.refobjid
                 WHERE h.dbid = d.oid AND h.refclassid = 'pg_authid'::regclass)
          FROM pg_database d WHERE d.datname = current_database()
    """)
    row = await cursor.fetchone() or ()
    found = zip(("extensions", "settings", "roles"), row, strict=False)
    return {name: _shorten(text) for name, text in found if text}


async def estimate_bytes(connection: Connection) -> int:
    """What a plain dump of the connected database reads: the size of its tables, without indexes.

    Asking for a table's size waits for who has locked it; after a moment, what the last VACUUM saw has to do.
    """
    try:
        async with connection.transaction():
            await connection.execute(f"SET LOCAL lock_timeout = {_SIZE_WAIT_MILLISECONDS}")
            return await _sum_of_tables(connection, "pg_table_size(c.oid)")
    except psycopg.errors.LockNotAvailable:
        pages = "(c.relpages + coalesce(t.relpages, 0)) * current_setting('block_size')::bigint"
        return await _sum_of_tables(connection, pages)


async def _sum_of_tables(connection: Connection, size: str) -> int:
    cursor = await connection.execute(f"""
        SELECT coalesce(sum({size}), 0)::bigint
               + (SELECT CASE WHEN EXISTS (SELECT FROM pg_largeobject_metadata)
                              THEN pg_table_size('pg_largeobject') ELSE 0 END)
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
          LEFT JOIN pg_class t ON t.oid = c.reltoastrelid
         WHERE {USER_SCHEMA} AND c.relkind = 'r'
    """)  # noqa: S608
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


async def unreadable_parts(connection: Connection) -> list[str]:
    """Tables and sequences that the connected role may not read whole, and how many large objects of whom it may not
    read, so that pg_dump would refuse.
    """
    cursor = await connection.execute(f"""
        SELECT format('%I.%I', n.nspname, c.relname)
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE {USER_SCHEMA} AND c.relkind IN ('r', 'p', 'S') AND {no_member("pg_class", "c.oid")}
           AND (NOT has_schema_privilege(n.oid, 'USAGE')
                OR NOT CASE c.relkind WHEN 'S' THEN has_sequence_privilege(c.oid, 'SELECT')
                            ELSE has_table_privilege(c.oid, 'SELECT') END
                OR c.relkind <> 'S' AND row_security_active(c.oid))
         ORDER BY 1
    """)  # noqa: S608
    # has_largeobject_privilege is there since 18 only.
    large = await connection.execute("""
        SELECT count(*) || CASE count(*) WHEN 1 THEN ' large object' ELSE ' large objects' END
               || ' of role ' || pg_get_userbyid(l.lomowner)
          FROM pg_largeobject_metadata l
         WHERE NOT current_setting('lo_compat_privileges')::bool
           AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
           AND CASE WHEN l.lomacl IS NULL THEN NOT pg_has_role(l.lomowner, 'USAGE')
                    ELSE NOT EXISTS (SELECT FROM aclexplode(l.lomacl) AS x
                                      WHERE x.privilege_type = 'SELECT'
                                        AND CASE x.grantee WHEN 0 THEN true ELSE pg_has_role(x.grantee, 'USAGE') END)
               END
         GROUP BY l.lomowner ORDER BY count(*) DESC, 1
    """)
    return [name for (name,) in [*await cursor.fetchall(), *await large.fetchall()]]


async def may_read_views(connection: Connection) -> bool:
    """Whether the connected role may read all materialized views: pg_dump reads none, a fingerprint does."""
    cursor = await connection.execute(f"""
        SELECT NOT EXISTS (
            SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE {USER_SCHEMA} AND c.relkind = 'm' AND c.relispopulated AND {no_member("pg_class", "c.oid")}
               AND (NOT has_schema_privilege(n.oid, 'USAGE') OR NOT has_table_privilege(c.oid, 'SELECT')))
    """)  # noqa: S608
    return await cursor.fetchone() == (True,)


async def tables_with_hidden_rows(connection: Connection) -> list[str]:
    """Of `unreadable_parts`, the tables where row security applies to the connected role."""
    cursor = await connection.execute(f"""
        SELECT format('%I.%I', n.nspname, c.relname)
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE {USER_SCHEMA} AND c.relkind IN ('r', 'p') AND {no_member("pg_class", "c.oid")}
           AND row_security_active(c.oid)
         ORDER BY 1
    """)  # noqa: S608
    return [name for (name,) in await cursor.fetchall()]


async def kept_schema_names(connection: Connection) -> list[str]:
    """Schemas of the connected database with what an import keeps; everything outside them is the app's."""
    cursor = await connection.execute("SELECT nspname FROM pg_namespace WHERE nspname ~ %s ORDER BY 1", [KEPT_SCHEMA])
    return [name for (name,) in await cursor.fetchall()]


async def foreign_servers(connection: Connection) -> list[str]:
    """Names of the connected database's foreign servers, but for those of extensions."""
    cursor = await connection.execute(
        f"SELECT srvname FROM pg_foreign_server s WHERE {no_member('pg_foreign_server', 's.oid')} ORDER BY 1"  # noqa: S608
    )
    return [name for (name,) in await cursor.fetchall()]


async def extension_tables(connection: Connection) -> frozenset[tuple[str, str]]:
    """Schema and name of tables of extensions whose rows pg_dump writes, as of PostGIS's spatial_ref_sys."""
    cursor = await connection.execute("""
        SELECT n.nspname, c.relname
          FROM pg_extension e CROSS JOIN unnest(e.extconfig) AS t (oid)
          JOIN pg_class c ON c.oid = t.oid JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'p')
    """)
    return frozenset(await cursor.fetchall())


async def other_databases(connection: Connection, name: str) -> list[str]:
    """Databases of the server besides `name` that people may have made, ours and the templates left out."""
    cursor = await connection.execute(
        r"""
        SELECT datname FROM pg_database
         WHERE NOT datistemplate AND datallowconn AND datname <> %s AND datname !~ '^mathison_(new|kept)_[0-9a-f]{12}$'
           AND has_database_privilege(oid, 'CONNECT')
         ORDER BY datname
        """,
        [name],
    )
    return [other for (other,) in await cursor.fetchall()]


def _shorten(text: str) -> str:
    encoded = text.encode()
    if len(encoded) <= MOST_DETAIL_BYTES:
        return text
    return encoded[:MOST_DETAIL_BYTES].decode(errors="ignore") + "…"
