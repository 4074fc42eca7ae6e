"""What a file says about who owns what and who may do what, taken back: an import decides neither.

Statements of a dump about it are left out while it is loaded, but a DO block or a function of a hostile one can give
things to roles of this server, open them to everyone, or close them. So what was loaded is looked at afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql

from agent.engines.pg.server.catalog import USER_SCHEMA, kept_schema_names
from agent.engines.pg.server.connection import Connection
from common.errors import AppUnavailableError, ArchiveRefusedError
from common.wording import some_of

_MOST_NAMES = 10
_WITHIN = """
    SELECT o.rolname FROM pg_roles o CROSS JOIN pg_roles r
     WHERE r.rolname = %s
       AND (r.rolsuper OR pg_has_role(r.oid, o.oid, 'USAGE') AND NOT o.rolsuper
            AND o.rolcreaterole <= r.rolcreaterole AND o.rolcreatedb <= r.rolcreatedb
            AND o.rolreplication <= r.rolreplication AND o.rolbypassrls <= r.rolbypassrls)
"""
_OWNERS = {
    "pg_class": "relowner",
    "pg_collation": "collowner",
    "pg_conversion": "conowner",
    "pg_foreign_server": "srvowner",
    "pg_largeobject_metadata": "lomowner",
    "pg_namespace": "nspowner",
    "pg_opclass": "opcowner",
    "pg_operator": "oprowner",
    "pg_opfamily": "opfowner",
    "pg_proc": "proowner",
    "pg_publication": "pubowner",
    "pg_statistic_ext": "stxowner",
    "pg_ts_config": "cfgowner",
    "pg_ts_dict": "dictowner",
    "pg_type": "typowner",
}
"""Catalogs of what a role that is no superuser can make, and their columns with the owner."""
_STRANGERS = " UNION ALL ".join(
    f"""
    SELECT format('%%s to %%s', (pg_identify_object('{catalog}'::regclass, x.oid, 0)).identity,
                  pg_get_userbyid(x.{owner}))
      FROM {catalog} x JOIN pg_roles r ON r.oid = x.{owner}
     WHERE x.oid >= 16384 AND r.rolname <> %(owner)s AND NOT r.rolsuper
    """  # noqa: S608  # names of this module and catalog.py, here and below
    for catalog, owner in _OWNERS.items()
)
"""To a superuser nobody else can give anything; what is its own came with extensions and range types."""
_STRANGERS += " UNION ALL SELECT 'default privileges to ' || pg_get_userbyid(defaclrole) FROM pg_default_acl"
_WITH_PRIVILEGES = f"""
    SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind, c.oid::regclass::text AS identity,
           'pg_class'::regclass AS class, c.oid, c.relowner AS owner,
           CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char" AS type,
           CASE WHEN EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attacl IS NOT NULL)
                THEN coalesce(c.relacl, acldefault('r', c.relowner))
                     || (SELECT array_agg(one) FROM pg_attribute a CROSS JOIN unnest(a.attacl) AS one
                          WHERE a.attrelid = c.oid)
                ELSE c.relacl END AS acl
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE {USER_SCHEMA} AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    UNION ALL
    SELECT 'ROUTINE', p.oid::regprocedure::text, 'pg_proc'::regclass, p.oid, p.proowner, 'f', p.proacl
      FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE {USER_SCHEMA}
    UNION ALL
    SELECT 'TYPE', t.oid::regtype::text, 'pg_type'::regclass, t.oid, t.typowner, 'T', t.typacl
      FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE {USER_SCHEMA}
    UNION ALL
    SELECT 'SCHEMA', quote_ident(n.nspname), 'pg_namespace'::regclass, n.oid, n.nspowner, 'n', n.nspacl
      FROM pg_namespace n WHERE {USER_SCHEMA}
    UNION ALL
    SELECT 'LARGE OBJECT', oid::text, 'pg_largeobject'::regclass, oid, lomowner, 'L', lomacl
      FROM pg_largeobject_metadata
    UNION ALL
    SELECT 'DATABASE', quote_ident(datname), 'pg_database'::regclass, oid, datdba, 'd', datacl
      FROM pg_database WHERE datname = current_database()
"""  # noqa: S608


def _changed_ones(condition: str) -> str:
    """Query of what has not the privileges of a new one."""
    return f"""
    SELECT kind, identity, pg_get_userbyid(owner) AS owner,
           ARRAY(SELECT DISTINCT nullif(grantee, 0)::regrole::text FROM aclexplode(acl) WHERE grantee <> owner)
           AS grantees,
           ARRAY(SELECT privilege_type FROM aclexplode(usual) WHERE grantee = 0) AS of_everyone
      FROM (SELECT *, acldefault(type, owner) AS by_default,
                   coalesce((SELECT initprivs FROM pg_init_privs i
                              WHERE i.classoid = class AND i.objoid = found.oid AND i.objsubid = 0),
                            acldefault(type, owner)) AS usual
              FROM ({_WITH_PRIVILEGES}) AS found WHERE acl IS NOT NULL AND {condition}) AS found
     WHERE (SELECT count(*) FROM aclexplode(acl) WHERE grantee = owner)
           < (SELECT count(*) FROM aclexplode(by_default) WHERE grantee = owner)
        OR ARRAY(SELECT format('%s %s %s', grantee, privilege_type, is_grantable) FROM aclexplode(acl)
                  WHERE grantee NOT IN (owner, 10) ORDER BY 1)
           <> ARRAY(SELECT format('%s %s %s', grantee, privilege_type, is_grantable) FROM aclexplode(usual)
                     WHERE grantee NOT IN (owner, 10) ORDER BY 1)
     ORDER BY 1, 2
"""  # noqa: S608  # 10 is the superuser of initdb


_CHANGED = _changed_ones("true")
_BROUGHT = """
    kind <> 'DATABASE'
    AND NOT (kind = 'SCHEMA' AND identity IN (SELECT quote_ident(name) FROM unnest(:there::text[]) AS name))
    AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = class AND e.objid = found.oid AND e.deptype = 'e')"""
_USUAL_AGAIN = f"""DO $do$ DECLARE changed record; who text; BEGIN
FOR changed IN {_changed_ones(_BROUGHT)} LOOP
    FOREACH who IN ARRAY changed.grantees LOOP
        EXECUTE format('REVOKE ALL ON %s %s FROM %s CASCADE', changed.kind, changed.identity, coalesce(who, 'PUBLIC'));
    END LOOP;
    EXECUTE format('GRANT ALL ON %s %s TO %I', changed.kind, changed.identity, changed.owner);
    FOREACH who IN ARRAY changed.of_everyone LOOP
        EXECUTE format('GRANT %s ON %s %s TO PUBLIC', who, changed.kind, changed.identity);
    END LOOP;
END LOOP; END $do$"""


@dataclass(frozen=True)
class _Changed:
    """Something whose privileges are not what a new one has.

    Attributes:
        grantees: who has privileges beside the owner, quoted as SQL needs it; None is PUBLIC.
        of_everyone: what PUBLIC has of a new one.
    """

    kind: str
    identity: str
    owner: str
    grantees: Sequence[str | None]
    of_everyone: Sequence[str]


async def roles_within(connection: Connection, role: str) -> frozenset[str]:
    """The roles that may do nothing that `role` may not: itself, and those whose rights it has as a member.

    Raises:
        AppUnavailableError: there is no such role.
    """
    cursor = await connection.execute(_WITHIN, [role])
    if found := frozenset(name for (name,) in await cursor.fetchall()):
        return found
    raise AppUnavailableError(f"The server has no role {role}.", next_step="Check user in the agent's settings.")


async def require_owner(connection: Connection, owner: str) -> None:
    """Everything in the connected database belongs to one role, or to a superuser.

    Raises:
        ArchiveRefusedError: the file gave something away, or set privileges for what is made in future.
    """
    cursor = await connection.execute(_STRANGERS, {"owner": owner})
    if given := sorted(name for (name,) in await cursor.fetchall()):
        raise ArchiveRefusedError(
            f"The file gives what it makes to other roles: {listed(given)}.",
            next_step="A dump made by pg_dump does not do that; make a new one.",
        )


async def require_no_kept_schema(connection: Connection) -> None:
    """A new database has no schema that would pass for one with previous data.

    Raises:
        ArchiveRefusedError: the file made one, in a DO block or in a way that statements do not show.
    """
    if found := await kept_schema_names(connection):
        raise ArchiveRefusedError(
            f"The file makes schemas called like those in which an import keeps previous data: {listed(found)}."
        )


async def take_back_privileges(connection: Connection) -> list[str]:
    """Give everything in the connected database, and itself, the privileges that new things have.

    Args:
        connection: of a superuser or of who has the owner's rights.
    Returns:
        Warnings: what the file had changed.
    Raises:
        ArchiveRefusedError: some cannot be taken back.
    """
    changed = await _changed(connection)
    for one in changed:
        for statement in _usual_again(one):
            await connection.execute(statement)
    if left := await _changed(connection) if changed else []:
        raise ArchiveRefusedError(
            f"The file gives privileges that cannot be taken back: on {_named(left)}.",
            next_step="A dump made by pg_dump does not do that; make a new one.",
        )
    if not changed:
        return []
    return [f"Privileges that the file gives or takes away itself were left out: on {_named(changed)}."]


def usual_again(schemas: Sequence[str]) -> sql.Composed:
    """A statement that gives what an import within a database brought the privileges that new things have, whatever
    default privileges there or code of the file gave.

    Args:
        schemas: those that it did not bring.
    """
    # A pattern in it has braces.
    before, _, behind = _USUAL_AGAIN.partition(":there")
    return sql.Composed([sql.SQL(before), sql.Literal(list(schemas)), sql.SQL(behind)])


async def _changed(connection: Connection) -> list[_Changed]:
    cursor = await connection.execute(_CHANGED)
    return [_Changed(*row) for row in await cursor.fetchall()]


def _usual_again(one: _Changed) -> list[sql.Composed]:
    target = sql.SQL("{} {}").format(sql.SQL(one.kind), sql.SQL(one.identity))  # quoted by the server, as grantees are
    return [
        *(
            sql.SQL("REVOKE ALL ON {} FROM {} CASCADE").format(target, sql.SQL(grantee or "PUBLIC"))
            for grantee in one.grantees
        ),
        sql.SQL("GRANT ALL ON {} TO {}").format(target, sql.Identifier(one.owner)),
        *(sql.SQL("GRANT {} ON {} TO PUBLIC").format(sql.SQL(right), target) for right in one.of_everyone),
    ]


def _named(changed: Sequence[_Changed]) -> str:
    names = ["the database" if one.kind == "DATABASE" else f"{one.kind.lower()} {one.identity}" for one in changed]
    return listed(names)


def listed(names: Sequence[str]) -> str:
    """Names for a text, at most ten."""
    return some_of(names, _MOST_NAMES)
