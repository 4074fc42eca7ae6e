"""Grants on what no file makes: members of extensions, languages, and what is the server's own.

A new database has them as the server and its extensions make them. What somebody gave or took away since (dblink for
one role alone, no lo_create for everybody) is carried over; how it was at first stands in pg_init_privs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import psycopg
from psycopg import sql

from agent.engines.pg.belongings.carry_over import grant_statement
from agent.engines.pg.belongings.read import GRANT_COLUMNS, Grant
from agent.engines.pg.server.catalog import KEPT_SCHEMA, no_member
from agent.engines.pg.server.connection import Connection
from agent.engines.pg.server.privileges import listed


class Place(NamedTuple):
    """On what there can be grants; `column` None: the whole of it."""

    kind: str
    identity: str
    column: str | None


SystemGrants = Mapping[Place, frozenset[Grant]]
"""Without those of owners."""


def _is_system(catalog: str, oid: str) -> str:
    """Condition on an object in the schema pg_namespace n."""
    is_system = f"n.nspname IN ('pg_catalog', 'information_schema') OR NOT {no_member(catalog, oid)}"
    return f"n.nspname !~ '{KEPT_SCHEMA}' AND ({is_system})"


_ALL = f"""
    SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind, n.nspname AS schema, c.relname AS name,
           a.attname AS column_name, c.relowner AS owner,
           'pg_class'::regclass AS class, c.oid, coalesce(a.attnum, 0) AS number,
           CASE WHEN a.attnum IS NULL THEN c.relacl ELSE a.attacl END AS acl,
           CASE WHEN a.attnum IS NOT NULL THEN 'c' WHEN c.relkind = 'S' THEN 's' ELSE 'r' END::"char" AS acl_type
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     CROSS JOIN LATERAL (SELECT NULL::name AS attname, NULL::int2 AS attnum, NULL::aclitem[] AS attacl UNION ALL
                         SELECT attname, attnum, attacl FROM pg_attribute
                          WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped) AS a
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND {_is_system("pg_class", "c.oid")}
    UNION ALL
    SELECT 'ROUTINE', n.nspname, p.proname, NULL, p.proowner, 'pg_proc'::regclass, p.oid, 0, p.proacl, 'f'
      FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE {_is_system("pg_proc", "p.oid")}
    UNION ALL
    SELECT 'TYPE', n.nspname, t.typname, NULL, t.typowner, 'pg_type'::regclass, t.oid, 0, t.typacl, 'T'
      FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE {_is_system("pg_type", "t.oid")}
    UNION ALL
    SELECT 'SCHEMA', NULL, n.nspname, NULL, n.nspowner, 'pg_namespace'::regclass, n.oid, 0, n.nspacl, 'n'
      FROM pg_namespace n WHERE {_is_system("pg_namespace", "n.oid")}
    UNION ALL
    SELECT 'LANGUAGE', NULL, l.lanname, NULL, l.lanowner, 'pg_language'::regclass, l.oid, 0, l.lanacl, 'l'
      FROM pg_language l
"""  # noqa: S608  # conditions of this module and catalog.py, here and below
_IDENTITY = """
    CASE WHEN kind = 'ROUTINE' THEN found.oid::regprocedure::text WHEN schema IS NULL THEN quote_ident(name)
         ELSE format('%%I.%%I', schema, name) END
"""
"""Takes most of the time for thousands of functions, so it is asked for after what is cheap to know."""
_USUAL = "coalesce(found.acl, acldefault(acl_type, owner))"
_OF_OTHERS = (
    "SELECT format('%%s %%s %%s', grantee, privilege_type, is_grantable) FROM aclexplode({}) WHERE grantee <> owner"
)
_CHANGED = f"""
    CASE WHEN i.initprivs IS NULL THEN found.acl IS NOT NULL
         ELSE ARRAY({_OF_OTHERS.format(_USUAL)} ORDER BY 1)
              <> ARRAY({_OF_OTHERS.format("i.initprivs")} ORDER BY 1) END
"""
"""Nothing is known of information_schema, so all that is there is compared."""
_NAMED = f"""
    kind = ANY(%(kinds)s::text[]) AND (kind, {_IDENTITY}, coalesce(column_name, '')) IN (
        SELECT * FROM unnest(%(kinds)s::text[], %(identities)s::text[], %(columns)s::text[]))
"""  # noqa: S608


def _query(condition: str) -> str:
    return f"""
        SELECT kind, {_IDENTITY}, column_name, {GRANT_COLUMNS}
          FROM ({_ALL}) AS found
          LEFT JOIN pg_init_privs i ON i.classoid = class AND i.objoid = found.oid AND i.objsubid = number
          LEFT JOIN LATERAL aclexplode({_USUAL}) AS x
            ON x.grantee <> owner AND (x.grantee = 0 OR EXISTS (SELECT FROM pg_roles r WHERE r.oid = x.grantee))
         WHERE {condition}
    """  # noqa: S608


async def read_system_grants(connection: Connection) -> SystemGrants:
    """Where the connected database has, or may have, others than it and its extensions were made with."""
    return _by_place(await (await connection.execute(_query(_CHANGED), {})).fetchall())


async def give_system_grants(connection: Connection, wanted: SystemGrants) -> list[str]:
    """Make those of the connected database that it has as well like these.

    Args:
        connection: of a superuser, or of who then gets a warning.
    Returns:
        Warnings: what could not be changed.
    """
    differing = _differences(wanted, await _present(connection, wanted))
    for place, missing, surplus in differing:
        target = sql.SQL("{} {}").format(sql.SQL(place.kind), sql.SQL(place.identity))  # quoted by the server
        statements = [
            *(grant_statement(grant, target, takes_away=True) for grant in surplus),
            *(grant_statement(grant, target) for grant in missing),
        ]
        for statement in statements:
            try:
                await connection.execute(statement)
            except psycopg.errors.ProgrammingError:
                # Of a REVOKE it may not, the server says so as a notice only: it is seen by looking again.
                break
    left = _differences(wanted, await _present(connection, wanted)) if differing else []
    if not left:
        return []
    names = [f"{place.kind.lower()} {place.identity}" for place, _, _ in left]
    return [
        "Grants on these are not those of the app's database, but those with which the server or the extension makes "
        f"them, since only a superuser may change them: {listed(sorted(set(names)))}."
    ]


async def _present(connection: Connection, wanted: SystemGrants) -> SystemGrants:
    if not wanted:
        return {}
    names = {
        "kinds": [place.kind for place in wanted],
        "identities": [place.identity for place in wanted],
        "columns": [place.column or "" for place in wanted],
    }
    return _by_place(await (await connection.execute(_query(_NAMED), names)).fetchall())


def _by_place(rows: list[tuple[str, str, str | None, str | None, str | None, bool]]) -> SystemGrants:
    found: dict[Place, set[Grant]] = {}
    for kind, identity, column, privilege, grantee, with_grant_option in rows:
        grants = found.setdefault(Place(kind, identity, column), set())
        if privilege is not None:
            grants.add(Grant(privilege, grantee, with_grant_option, column))
    return {place: frozenset(grants) for place, grants in found.items()}


def _differences(wanted: SystemGrants, present: SystemGrants) -> list[tuple[Place, list[Grant], list[Grant]]]:
    """Of what is in both: what is missing and what is too much, those in a stable order."""
    return [
        (place, _sorted(wanted[place] - grants), _sorted(grants - wanted[place]))
        for place, grants in sorted(present.items(), key=str)
        if grants != wanted[place]
    ]


def _sorted(grants: frozenset[Grant]) -> list[Grant]:
    return sorted(grants, key=str)
