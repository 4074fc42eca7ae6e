"""Schemas that an import within the database left, dropped in pieces, each in a transaction of its own.

A DROP SCHEMA locks each thing that goes with it, down to columns' defaults, and all sessions of a server share the room
for locks. What was begun can be gone on with at any time.
"""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
from psycopg import sql

from agent.engines.pg.aside.moving import OWNED_SEQUENCE
from agent.engines.pg.server.catalog import no_member
from agent.engines.pg.server.connection import Connection
from agent.engines.pg.server.prepared import how_to_go_on
from agent.engines.pg.server.privileges import listed
from common.errors import AppBusyError

LOCK_WAIT_SECONDS = 20
"""For who still reads what is dropped."""
_MOST_AT_ONCE = 50
_THINGS = f"""
    SELECT kind, identity FROM (
        SELECT CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE'
                    WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END AS kind,
               c.oid::regclass::text AS identity, c.oid,
               CASE WHEN c.relkind IN ('v', 'm') THEN 1 WHEN c.relispartition THEN 2 ELSE 3 END AS turn
          FROM pg_class c
         WHERE c.relnamespace = to_regnamespace(quote_ident(%(schema)s)) AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
           AND {no_member("pg_class", "c.oid")}
           AND NOT (c.relkind = 'S' AND {OWNED_SEQUENCE})
        UNION ALL
        SELECT 'ROUTINE', p.oid::regprocedure::text, p.oid, 4 FROM pg_proc p
         WHERE p.pronamespace = to_regnamespace(quote_ident(%(schema)s)) AND {no_member("pg_proc", "p.oid")}
           AND NOT EXISTS (SELECT FROM pg_depend i WHERE i.classid = 'pg_proc'::regclass AND i.objid = p.oid
                              AND i.deptype = 'i')
    ) AS things ORDER BY turn, oid DESC
"""  # noqa: S608  # of this module and catalog.py
"""Who needs others goes before them, as far as the order of making tells; the rest goes by CASCADE."""
_USERS = """
    WITH RECURSIVE kept (class, number) AS (
        SELECT 'pg_namespace'::regclass::oid, oid FROM pg_namespace WHERE nspname = ANY(%(schemas)s)
        UNION SELECT d.classid, d.objid FROM kept
          JOIN pg_depend d ON d.refclassid = kept.class AND d.refobjid = kept.number
    ), tables (number) AS (
        SELECT CASE class WHEN 'pg_class'::regclass THEN number
                          WHEN 'pg_rewrite'::regclass THEN (SELECT ev_class FROM pg_rewrite WHERE oid = number)
                          WHEN 'pg_constraint'::regclass THEN (SELECT conrelid FROM pg_constraint WHERE oid = number)
                          WHEN 'pg_attrdef'::regclass THEN (SELECT adrelid FROM pg_attrdef WHERE oid = number)
                          WHEN 'pg_trigger'::regclass THEN (SELECT tgrelid FROM pg_trigger WHERE oid = number)
                          WHEN 'pg_policy'::regclass THEN (SELECT polrelid FROM pg_policy WHERE oid = number) END
          FROM kept
    )
    SELECT DISTINCT pg_describe_object('pg_class'::regclass, c.oid, 0)
      FROM tables t JOIN pg_class c ON c.oid = t.number JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname <> ALL(%(schemas)s) AND n.nspname !~ '^pg_'
    UNION
    SELECT pg_describe_object('pg_proc'::regclass, p.oid, 0)
      FROM kept JOIN pg_proc p ON class = 'pg_proc'::regclass AND number = p.oid
      JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname <> ALL(%(schemas)s)
    UNION
    SELECT pg_describe_object(class, number, 0) FROM kept
     WHERE class IN ('pg_event_trigger'::regclass, 'pg_transform'::regclass, 'pg_language'::regclass, 'pg_am'::regclass,
                     'pg_foreign_data_wrapper'::regclass)
    UNION
    SELECT pg_describe_object(class, number, 0) FROM kept
      JOIN pg_cast k ON class = 'pg_cast'::regclass AND number = k.oid
      JOIN pg_type s ON s.oid = k.castsource JOIN pg_type t ON t.oid = k.casttarget
     WHERE %(all_casts)s AND NOT EXISTS (SELECT FROM pg_depend i WHERE i.classid = class AND i.objid = number
                                            AND i.deptype = 'i')
        OR EXISTS (SELECT FROM pg_namespace n WHERE n.oid IN (s.typnamespace, t.typnamespace)
                      AND n.nspname !~ '^(pg_|information_schema$)' AND n.nspname <> ALL(%(schemas)s))
        OR NOT EXISTS (SELECT FROM pg_namespace n WHERE n.oid IN (s.typnamespace, t.typnamespace)
                          AND n.nspname = ANY(%(schemas)s))
     ORDER BY 1
"""
"""A cast of previous types, which an earlier agent left, is kept with them."""


async def users(connection: Connection, schemas: Sequence[str], *, all_casts: bool = False) -> list[str]:
    """What is outside of these schemas and made of something in them, for a person.

    Args:
        all_casts: also those of nothing else.
    """
    cursor = await connection.execute(_USERS, {"schemas": list(schemas), "all_casts": all_casts})
    return [name for (name,) in await cursor.fetchall()]


async def require_unused(connection: Connection, schemas: Sequence[str]) -> None:
    """Nothing outside of these schemas would be dropped along with them, or lose a part.

    Raises:
        AppBusyError: somebody made something that uses what is in them.
    """
    if names := await users(connection, schemas):
        raise AppBusyError(
            f"What is to be dropped ({', '.join(schemas)}) is used by others, which it would take along or change: "
            f"{listed(names)}.",
            next_step="Drop these, or take out of them what uses it; then it is dropped by itself.",
        )


async def drop_schemas(connection: Connection, schemas: Sequence[str]) -> None:
    """Drop schemas with all that is in them, one after the other.

    Raises:
        AppBusyError: somebody uses what is in them. Some are gone, or a part of one, as after any failure.
    """
    await connection.execute(f"SET lock_timeout = '{LOCK_WAIT_SECONDS}s'")
    try:
        for schema in schemas:
            await _empty(connection, schema)
            await connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema)))
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as failure:
        usually = "End the sessions that use it; then it is dropped by itself."
        raise AppBusyError(
            f"What is in schema {schema} is in use: {failure.diag.message_primary}.",
            next_step=await how_to_go_on(connection, connection.info.dbname, usually),
        ) from failure


async def _empty(connection: Connection, schema: str) -> None:
    """Drop the tables and functions of a schema; with the rest, the schema itself is a small thing."""
    cursor = await connection.execute(_THINGS, {"schema": schema})
    left, at_once = await cursor.fetchall(), _MOST_AT_ONCE
    while left:
        try:
            async with connection.transaction():
                for kind, identity in left[:at_once]:
                    what = sql.SQL("DROP {} IF EXISTS {} CASCADE").format(sql.SQL(kind), sql.SQL(identity))
                    await connection.execute(what)
        except psycopg.errors.OutOfMemory:
            if at_once == 1:
                raise
            at_once //= 2
        else:
            del left[:at_once]
