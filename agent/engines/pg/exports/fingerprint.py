"""Whether two databases hold the same: rows and an order-free hash per table, sequences, large objects, object counts.

Computed by the server, one row at a time, so nothing but numbers leaves it. Comparable between majors 13 to 18 and
between databases of one encoding; see `row_hash` for what is hashed, in a fixed session and in the server's encoding.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
import psycopg
from psycopg import sql

import common.fingerprints
from agent.engines.pg.exports.routed import Whole, routed_partitions
from agent.engines.pg.exports.row_hash import row_hash
from agent.engines.pg.server.catalog import ROWS_ABOUT, USER_SCHEMA, no_member
from agent.engines.pg.server.connection import Connection

SCHEME = "postgresql/2"
NEWER_SCHEME = "postgresql/3"
"""Of a database with `routed` partitions, which scheme 2 told one by one, or with triggers of partitioned tables, of
which scheme 2 counted those of the partitions as well from PostgreSQL 15 on. Any other has the same values in both."""
_LOCK_WAIT_MILLISECONDS = 2000
_LOCKED_AT_ONCE = 500
_SESSION = """
    SET LOCAL timezone = 'UTC';
    SET LOCAL datestyle = 'ISO, YMD';
    SET LOCAL intervalstyle = 'postgres';
    SET LOCAL extra_float_digits = 1;
    SET LOCAL bytea_output = 'hex';
    SET LOCAL lc_monetary = 'C';
    SET LOCAL row_security = 'off';
    SET LOCAL jit = off
"""
"""What a value's text depends on, no rows hidden by policies, and nothing compiled: that gains a table of 860,000 rows
nothing (PostgreSQL 15) and costs each process that reads one 0.05 s, of 60 columns 0.4 s."""
_ONLY_TABLES = (
    "SELECT set_config(name, 'view, foreign-table', true) FROM pg_settings"
    " WHERE name = 'restrict_nonsystem_relation_kind'"
)
"""So that a table which was exchanged for a view meanwhile is not read: its functions would run with our rights."""


@dataclass(frozen=True)
class Scope:
    """What counts of a database.

    Attributes:
        scheme: name of the fingerprints.
        without_columns: by schema and table.
    """

    scheme: str = SCHEME
    without_columns: Mapping[tuple[str, str], Collection[str]] = field(default_factory=dict)


EVERYTHING = Scope()


class Table(msgspec.Struct, frozen=True):
    """Row count, and the sum of the rows' hashes as text: it exceeds 64 bits."""

    rows: int
    hash: str

    def __add__(self, other: Table) -> Table:
        return Table(self.rows + other.rows, str(int(self.hash) + int(other.hash)))


class Fingerprint(msgspec.Struct, frozen=True, omit_defaults=True):
    """Content of one database. Names are quoted as SQL needs it.

    Attributes:
        tables: of `routed` partitions, the whole tables.
        sequences: last value, and whether it was given out already.
        objects: user objects by kind.
        needs_newer_scheme: it has something that scheme 2 told otherwise.
    """

    tables: dict[str, Table]
    sequences: dict[str, tuple[int, bool]]
    large_objects: Table
    objects: dict[str, int]
    needs_newer_scheme: bool = False

    @property
    def sha256(self) -> str:
        """Of all of it, in lower-case hex."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()

    def differences(self, other: Fingerprint) -> list[str]:
        """One sentence for each thing that differs; empty when both are the same."""
        found = []
        for what in ("tables", "sequences", "objects"):
            mine, theirs = getattr(self, what), getattr(other, what)
            found += [
                f"{what}: {name} is {_say(mine.get(name))} here and {_say(theirs.get(name))} there"
                for name in sorted({*mine, *theirs})
                if mine.get(name) != theirs.get(name)
            ]
        if self.large_objects != other.large_objects:
            found.append(f"large objects: {_say(self.large_objects)} here and {_say(other.large_objects)} there")
        return found

    def comparable(self, scheme: str = SCHEME) -> common.fingerprints.Fingerprint:
        """For archives and callers. Without the values of sequences: no snapshot holds them, so in a busy database a
        dump has later ones.
        """
        parts = {f"table {name}": _say(table) for name, table in self.tables.items()}
        parts |= {f"objects: {kind}": str(count) for kind, count in self.objects.items()}
        if self.needs_newer_scheme and scheme == SCHEME:
            scheme = NEWER_SCHEME
        return common.fingerprints.Fingerprint.of(scheme, {**parts, "large objects": _say(self.large_objects)})


def _say(value: object) -> str:
    match value:
        case None:
            return "missing"
        case Table(rows=rows, hash=digest):
            return f"{rows} rows, {digest}"
    return str(value)


async def fingerprint(connection: Connection, scope: Scope = EVERYTHING) -> Fingerprint:
    """The content of the connected database at one moment. Reads every row.

    Args:
        connection: from `connection.connect`, in autocommit mode, of a role that may read everything.
    """
    async with one_moment(connection):
        return await read_content(connection, scope)


@asynccontextmanager
async def one_moment(connection: Connection) -> AsyncIterator[None]:
    """A transaction that sees the database as it was when it began, and can change nothing.

    It ends with a rollback: should the server go away before, what was read is read, and its end is no failure.
    """
    async with connection.transaction(force_rollback=True):
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield


async def hold_tables(connection: Connection) -> None:
    """Keep every table as it is while others read the same snapshot; within `one_moment`.

    TRUNCATE and the forms of ALTER TABLE that rewrite a table show in older snapshots too. Without this they could run
    between the end of a dump, which holds them off, and our own reading.
    """
    await connection.execute(f"SET LOCAL lock_timeout = {_LOCK_WAIT_MILLISECONDS}")
    names = [sql.Identifier(schema, table) for _, schema, table in await _tables(connection, kinds="'r'")]
    for start in range(0, len(names), _LOCKED_AT_ONCE):
        tables = sql.SQL(", ").join(sql.SQL("ONLY {}").format(name) for name in names[start : start + _LOCKED_AT_ONCE])
        await connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(tables))
    await connection.execute("SET LOCAL lock_timeout = 0")


async def read_small_tables(
    connection: Connection, *, most_bytes: int, within_seconds: float
) -> dict[str, tuple[int, str | None]]:
    """Rows and their hash of every table of the connected database, the smallest first, as far as the limits reach.

    Returns:
        For each its number of rows and what a fingerprint says of it; beyond the limits, of those that the role may not
        read whole and of those that are locked: what the server's statistics say, and None.
    """
    ends_at = time.monotonic() + within_seconds
    found: dict[str, tuple[int, Table | None]] = {}
    async with one_moment(connection):
        await connection.execute(_SESSION)
        await connection.execute(_ONLY_TABLES)
        routed = await routed_partitions(connection)
        cursor = await connection.execute(f"""
            SELECT format('%I.%I', n.nspname, c.relname), n.nspname, c.relname, {ROWS_ABOUT},
                   c.relpages * current_setting('block_size')::bigint + coalesce(pg_relation_size(c.reltoastrelid), 0)
              FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE {USER_SCHEMA} AND c.relkind IN ('r', 'm') AND c.relispopulated AND {no_member("pg_class", "c.oid")}
             ORDER BY 5
        """)  # noqa: S608
        for name, schema, table, rows, size_bytes in await cursor.fetchall():
            most_bytes -= size_bytes
            left_seconds = ends_at - time.monotonic()
            read = None
            if most_bytes >= 0 and left_seconds > 0:
                read = await _table_within(connection, schema, table, left_seconds, whole=routed.get((schema, table)))
            rows = read.rows if read else rows
            if whole := routed.get((schema, table)):
                name = whole.quoted
                others, content = found.get(name, (0, Table(0, "0")))
                rows, read = rows + others, read + content if read and content else None
            found[name] = (rows, read)
    return {name: (rows, _say(read) if read else None) for name, (rows, read) in found.items()}


async def _table_within(
    connection: Connection, schema: str, table: str, seconds: float, *, whole: Whole | None
) -> Table | None:
    try:
        async with connection.transaction():
            await connection.execute(f"SET LOCAL statement_timeout = {int(seconds * 1000) + 1}")
            return await _table(connection, schema, table, whole=whole)
    except psycopg.errors.DatabaseError:
        # Too slow, not permitted, gone meanwhile, or content that cannot be read: a preview does without.
        if connection.broken:
            raise
        return None


async def read_content(connection: Connection, scope: Scope = EVERYTHING) -> Fingerprint:
    """As `fingerprint`, within `one_moment`."""
    await connection.execute(_SESSION)
    await connection.execute(_ONLY_TABLES)
    routed = await routed_partitions(connection)
    tables: dict[str, Table] = {}
    for name, schema, table in await _tables(connection):
        whole = routed.get((schema, table))
        read = await _table(
            connection, schema, table, whole=whole, without=scope.without_columns.get((schema, table), ())
        )
        if whole is None:
            tables[name] = read
        else:
            tables[whole.quoted] = tables.get(whole.quoted, Table(0, "0")) + read
    return Fingerprint(
        tables=tables,
        needs_newer_scheme=bool(routed) or await _has_triggers_of_whole_tables(connection),
        sequences=await _sequences(connection),
        large_objects=await _large_objects(connection),
        objects=await _objects(connection),
    )


async def _tables(connection: Connection, *, kinds: str = "'r', 'm'") -> list[tuple[str, str, str]]:
    cursor = await connection.execute(f"""
        SELECT format('%I.%I', n.nspname, c.relname), n.nspname, c.relname
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE {USER_SCHEMA} AND c.relkind IN ({kinds}) AND c.relispopulated
           AND {no_member("pg_class", "c.oid")}
         ORDER BY 1
    """)  # noqa: S608
    return await cursor.fetchall()


async def _table(
    connection: Connection, schema: str, table: str, *, whole: Whole | None = None, without: Collection[str] = ()
) -> Table:
    """One table by itself; a routed partition with its columns in the order of the whole one, which may differ."""
    ordered = await _columns(connection, *((whole.schema, whole.table) if whole else (schema, table)))
    columns = [column for column in ordered if column[0] not in without]
    alias = sql.Identifier("row")
    query = sql.SQL("SELECT count(*), coalesce(sum({hash}), 0)::text FROM ONLY {table} AS {alias}").format(
        hash=row_hash(columns, alias), table=sql.Identifier(schema, table), alias=alias
    )
    row = await (await connection.execute(query)).fetchone()
    return Table(*(row or (0, "0")))


async def _columns(connection: Connection, schema: str, table: str) -> list[tuple[str, str | None]]:
    """Name and, of a type of pg_catalog, its name."""
    cursor = await connection.execute(
        """
        SELECT a.attname, t.typname
          FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
          LEFT JOIN pg_type t ON t.oid = a.atttypid AND t.typnamespace = 'pg_catalog'::regnamespace
         WHERE n.nspname = %s AND c.relname = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
        """,
        [schema, table],
    )
    return await cursor.fetchall()


async def _sequences(connection: Connection) -> dict[str, tuple[int, bool]]:
    cursor = await connection.execute(f"""
        SELECT format('%I.%I', n.nspname, c.relname), n.nspname, c.relname
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE {USER_SCHEMA} AND c.relkind = 'S' AND {no_member("pg_class", "c.oid")}
    """)  # noqa: S608
    found = {}
    for name, schema, sequence in await cursor.fetchall():
        query = sql.SQL("SELECT last_value, is_called FROM {}").format(sql.Identifier(schema, sequence))
        if row := await (await connection.execute(query)).fetchone():
            found[name] = (row[0], row[1])
    return found


async def _has_triggers_of_whole_tables(connection: Connection) -> bool:
    """Each partition has its own copy of such a trigger."""
    cursor = await connection.execute(
        "SELECT EXISTS (SELECT FROM pg_trigger g JOIN pg_trigger w ON w.oid = g.tgparentid WHERE NOT w.tgisinternal)"
    )
    return await cursor.fetchone() == (True,)


async def _large_objects(connection: Connection) -> Table:
    cursor = await connection.execute("""
        SELECT count(*), coalesce(sum(hashtextextended(oid || ' ' || md5(lo_get(oid)), 0)), 0)::text
          FROM pg_largeobject_metadata
    """)
    return Table(*(await cursor.fetchone() or (0, "0")))


def _not_internal(catalog: str, oid: str) -> str:
    """Not made along with something else, as a range type's functions and casts are, in number by the major."""
    return (
        f"NOT EXISTS (SELECT FROM pg_depend i WHERE i.classid = '{catalog}'::regclass AND i.objid = {oid}"
        " AND i.deptype = 'i')"
    )


async def _objects(connection: Connection) -> dict[str, int]:
    """Counts by kind. Left out is what majors store differently (NOT NULL constraints are rows since 18, partitions'
    own copies of triggers internal before 15) and what belongs to a table anyway (row types, array types, internal
    triggers).
    """
    cursor = await connection.execute(f"""
        SELECT kind, count(*) FROM (
            SELECT 'relation ' || c.relkind::text AS kind
              FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE {USER_SCHEMA} AND {no_member("pg_class", "c.oid")}
            UNION ALL
            SELECT 'routine ' || p.prokind::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
             WHERE {USER_SCHEMA} AND {no_member("pg_proc", "p.oid")} AND {_not_internal("pg_proc", "p.oid")}
            UNION ALL
            SELECT 'type ' || t.typtype::text FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
             WHERE {USER_SCHEMA} AND t.typtype IN ('e', 'd', 'r') AND {no_member("pg_type", "t.oid")}
            UNION ALL
            SELECT 'constraint ' || k.contype::text || CASE WHEN k.convalidated THEN '' ELSE ' not valid' END
              FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace
             WHERE {USER_SCHEMA} AND k.contype IN ('c', 'f', 'p', 'u', 'x') AND {no_member("pg_constraint", "k.oid")}
            UNION ALL
            SELECT 'index ' || CASE WHEN i.indisvalid THEN 'valid' ELSE 'invalid' END
              FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE {USER_SCHEMA} AND {no_member("pg_class", "c.oid")}
            UNION ALL
            SELECT 'trigger ' || g.tgenabled::text FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid
              JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE {USER_SCHEMA} AND NOT g.tgisinternal AND g.tgparentid = 0
            UNION ALL
            SELECT 'policy' FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
              JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {USER_SCHEMA}
            UNION ALL
            SELECT 'rule' FROM pg_rewrite w JOIN pg_class c ON c.oid = w.ev_class
              JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE {USER_SCHEMA} AND w.rulename <> '_RETURN' AND {no_member("pg_rewrite", "w.oid")}
            UNION ALL
            SELECT 'statistics' FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = s.stxnamespace
             WHERE {USER_SCHEMA}
            UNION ALL
            SELECT 'operator' FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace
             WHERE {USER_SCHEMA} AND {no_member("pg_operator", "o.oid")}
            UNION ALL
            SELECT 'cast' FROM pg_cast k
             WHERE k.oid >= 16384 AND {no_member("pg_cast", "k.oid")} AND {_not_internal("pg_cast", "k.oid")}
            UNION ALL
            SELECT 'collation' FROM pg_collation k JOIN pg_namespace n ON n.oid = k.collnamespace WHERE {USER_SCHEMA}
            UNION ALL
            SELECT 'text search configuration' FROM pg_ts_config k JOIN pg_namespace n ON n.oid = k.cfgnamespace
             WHERE {USER_SCHEMA} AND {no_member("pg_ts_config", "k.oid")}
            UNION ALL
            SELECT 'comment' FROM pg_description d
             WHERE d.objoid >= 16384 AND d.classoid NOT IN ('pg_extension'::regclass, 'pg_namespace'::regclass)
               AND NOT EXISTS (SELECT FROM pg_depend e
                                WHERE e.classid = d.classoid AND e.objid = d.objoid AND e.deptype = 'e')
               AND (pg_identify_object(d.classoid, d.objoid, d.objsubid)).identity
                   !~ 'mathison_(kept|drop)_[0-9a-f]{{12}}_'
            UNION ALL
            SELECT 'column default' FROM pg_attrdef f JOIN pg_class c ON c.oid = f.adrelid
              JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {USER_SCHEMA}
            UNION ALL
            SELECT 'schema' FROM pg_namespace n WHERE {USER_SCHEMA} AND {no_member("pg_namespace", "n.oid")}
            UNION ALL
            SELECT 'extension' FROM pg_extension
            UNION ALL
            SELECT 'event trigger' FROM pg_event_trigger
            UNION ALL
            SELECT 'publication' FROM pg_publication
        ) AS found GROUP BY kind
    """)  # noqa: S608
    return dict(sorted(await cursor.fetchall()))
