"""What a database has beside its content: owners, grants, settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from agent.engines.pg.server.catalog import USER_SCHEMA, WITHOUT_GRANTS, DatabaseFacts, no_member
from agent.engines.pg.server.connection import Connection
from agent.engines.pg.server.privileges import roles_within


class Grant(NamedTuple):
    """A privilege on something; `grantee` None is PUBLIC, `columns` empty the whole of it."""

    privilege: str
    grantee: str | None
    with_grant_option: bool
    column: str | None = None


@dataclass
class Thing:
    """A schema, relation, routine, type, …: where it is found, whose it is, its grants (None: default ones).

    Attributes:
        withheld: what its owner has not, since somebody took it away.
        passed_on: of the grants, in words, those that not its owner made but who had the right to pass them on.
    """

    kind: str
    identity: str
    owner: str
    grants: list[Grant] | None = None
    withheld: list[Grant] = field(default_factory=list)
    passed_on: list[str] = field(default_factory=list)


class DefaultGrant(NamedTuple):
    """One row of pg_default_acl; `schema` None: everywhere. `withheld` is what the role itself will not have."""

    role: str
    schema: str | None
    kind: str
    grants: list[Grant]
    withheld: list[Grant]


class Setting(NamedTuple):
    """A setting of the database, or of one role in it."""

    role: str | None
    name: str
    value: str


@dataclass
class Belongings:
    """All that is carried over.

    Attributes:
        content_owner: who loads; or of `trusted_owners`, who owns most of the tables; else the database's owner or
            `app_role`.
        app_role: the role that the app itself uses.
        trusted_owners: the roles that may do nothing that `app_role` may not: itself, and roles whose member it is.
        large_objects: those with another owner or grants of their own, by number.
        has_more_large_objects: there are too many of them to carry them over, so none is in the list.
    """

    database: DatabaseFacts
    content_owner: str
    app_role: str
    trusted_owners: frozenset[str]
    things: list[Thing] = field(default_factory=list)
    default_grants: list[DefaultGrant] = field(default_factory=list)
    database_grants: list[Grant] | None = None
    database_withheld: list[Grant] = field(default_factory=list)
    database_passed_on: list[str] = field(default_factory=list)
    settings: list[Setting] = field(default_factory=list)
    labels: list[tuple[str, str]] = field(default_factory=list)
    """Provider and label of the database's security labels."""
    large_objects: list[Thing] = field(default_factory=list)
    has_more_large_objects: bool = False
    extensions: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Version and owner of each."""


PUBLICATION = "PUBLICATION"
WRAPPER = "FOREIGN DATA WRAPPER"
LARGE_OBJECT = "LARGE OBJECT"
MOST_LARGE_OBJECTS = 10_000
"""Each takes a statement of its own or several; a database may hold millions."""
_KINDS = {
    "TABLE": f"""
        SELECT c.oid, format('%I.%I', n.nspname, c.relname) AS identity, c.relowner AS owner, c.relacl AS acl
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE {USER_SCHEMA} AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND {no_member("pg_class", "c.oid")}
    """,  # noqa: S608  # conditions of catalog.py, here and below
    "SEQUENCE": f"""
        SELECT c.oid, format('%I.%I', n.nspname, c.relname) AS identity, c.relowner AS owner, c.relacl AS acl
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE {USER_SCHEMA} AND c.relkind = 'S' AND {no_member("pg_class", "c.oid")}
    """,  # noqa: S608
    "SCHEMA": f"""
        SELECT n.oid, format('%I', n.nspname) AS identity, n.nspowner AS owner, n.nspacl AS acl
          FROM pg_namespace n WHERE {USER_SCHEMA} AND {no_member("pg_namespace", "n.oid")}
    """,  # noqa: S608
    # Those that were made along with a range type are the superuser's everywhere.
    "ROUTINE": f"""
        SELECT p.oid, p.oid::regprocedure::text AS identity, p.proowner AS owner, p.proacl AS acl
          FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
         WHERE {USER_SCHEMA} AND {no_member("pg_proc", "p.oid")}
           AND NOT EXISTS (SELECT FROM pg_depend i WHERE i.classid = 'pg_proc'::regclass AND i.objid = p.oid
                              AND i.deptype = 'i')
    """,  # noqa: S608
    "TYPE": f"""
        SELECT t.oid, t.oid::regtype::text AS identity, t.typowner AS owner, t.typacl AS acl
          FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_class c ON c.oid = t.typrelid
         WHERE {USER_SCHEMA} AND t.typtype IN ('e', 'd', 'r', 'c') AND (c.oid IS NULL OR c.relkind = 'c')
           AND {no_member("pg_type", "t.oid")}
    """,  # noqa: S608
}
OF_OWNERS = frozenset({*WITHOUT_GRANTS, PUBLICATION})
"""Kinds of what has an owner and no privileges."""
_OF_OWNERS = " UNION ALL ".join(
    [
        "SELECT 'PUBLICATION', quote_ident(pubname), pg_get_userbyid(pubowner) FROM pg_publication",
        *(
            f"""
            SELECT '{kind}', (pg_identify_object('{catalog}'::regclass, x.oid, 0)).identity,
                   pg_get_userbyid(x.{prefix}owner)
              FROM {catalog} x JOIN pg_namespace n ON n.oid = x.{prefix}namespace
             WHERE {USER_SCHEMA} AND {no_member(catalog, "x.oid")}
            """  # noqa: S608
            for kind, (catalog, prefix) in WITHOUT_GRANTS.items()
        ),
    ]
)
_OWNED_SEQUENCES = """
    SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'S'
       AND EXISTS (SELECT FROM pg_depend o WHERE o.classid = 'pg_class'::regclass AND o.objid = c.oid
                      AND o.refclassid = 'pg_class'::regclass AND o.deptype IN ('a', 'i'))
"""
_ACL_TYPES = {
    "TABLE": "r",
    "SEQUENCE": "s",
    "SCHEMA": "n",
    "ROUTINE": "f",
    "TYPE": "T",
    WRAPPER: "F",
    LARGE_OBJECT: "L",
}
"""As acldefault calls them."""
_WRAPPERS = (
    "SELECT oid, quote_ident(fdwname) AS identity, fdwowner AS owner, fdwacl AS acl FROM pg_foreign_data_wrapper"
)
_LARGE_OBJECTS = """
    SELECT oid, oid::text AS identity, lomowner AS owner, lomacl AS acl FROM pg_largeobject_metadata
     WHERE lomacl IS NOT NULL OR pg_get_userbyid(lomowner) <> %s ORDER BY oid LIMIT %s
"""


async def read_belongings(
    connection: Connection, database: DatabaseFacts, *, app_role: str, loader: str | None
) -> Belongings:
    """What the old database has.

    Args:
        connection: to the old database itself, of the role that will give everything to the new one.
        loader: whose everything is that a file brings; None: a throw-away role's, and then the content owner's.
    Raises:
        AppUnavailableError: there is no role `app_role`.
    """
    trusted = await roles_within(connection, app_role)
    owner = loader or await _content_owner(connection, trusted)
    owner = owner or (database.owner if database.owner in trusted else app_role)
    found = Belongings(database, owner, app_role, trusted)
    for kind, query in _KINDS.items():
        found.things += await _things(connection, kind, query)
    found.things += await things_of_owners(connection)
    owned = {name for (name,) in await (await connection.execute(_OWNED_SEQUENCES)).fetchall()}
    for thing in found.things:
        if thing.kind == "SEQUENCE" and thing.identity in owned:
            # It follows its table and cannot be given away alone.
            thing.owner = ""
    # Only a superuser can own one, and does already: it comes with an extension.
    found.things += [replace(thing, owner="") for thing in await _things(connection, WRAPPER, _WRAPPERS)]
    large = await _things(connection, LARGE_OBJECT, _LARGE_OBJECTS, values=[owner, MOST_LARGE_OBJECTS + 1])
    found.has_more_large_objects = len(large) > MOST_LARGE_OBJECTS
    found.large_objects = [] if found.has_more_large_objects else large
    await _add_column_grants(connection, found.things)
    found.default_grants = await _default_grants(connection)
    await _add_database_grants(connection, found)
    found.extensions = await extensions(connection)
    cursor = await connection.execute(
        "SELECT r.rolname, split_part(entry, '=', 1), substr(entry, strpos(entry, '=') + 1)"
        "  FROM pg_db_role_setting s CROSS JOIN unnest(s.setconfig) AS entry LEFT JOIN pg_roles r ON r.oid = s.setrole"
        " WHERE s.setdatabase = %s AND (s.setrole = 0 OR r.oid IS NOT NULL)",
        [database.oid],
    )
    found.settings = [Setting(*row) for row in await cursor.fetchall()]
    labels = await connection.execute(
        "SELECT provider, label FROM pg_shseclabel WHERE objoid = %s AND classoid = 'pg_database'::regclass",
        [database.oid],
    )
    found.labels = await labels.fetchall()
    return found


async def things_of_owners(connection: Connection) -> list[Thing]:
    """Those of the connected database that are of OF_OWNERS."""
    cursor = await connection.execute(_OF_OWNERS)
    return [Thing(*row) for row in await cursor.fetchall()]


async def extensions(connection: Connection) -> dict[str, tuple[str, str]]:
    """Version and owner of each of the connected database."""
    cursor = await connection.execute("SELECT extname, extversion, pg_get_userbyid(extowner) FROM pg_extension")
    return {name: (version, owner) for name, version, owner in await cursor.fetchall()}


async def schema_public(connection: Connection) -> Thing | None:
    """That of the connected database, if it has one."""
    found = await _things(connection, "SCHEMA", f"{_KINDS['SCHEMA']} AND n.nspname = 'public'")
    return found[0] if found else None


async def _content_owner(connection: Connection, trusted: frozenset[str]) -> str | None:
    cursor = await connection.execute(
        f"""
        SELECT pg_get_userbyid(c.relowner)
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE {USER_SCHEMA} AND c.relkind IN ('r', 'p', 'v', 'm', 'S') AND {no_member("pg_class", "c.oid")}
           AND pg_has_role(c.relowner, 'USAGE') AND pg_get_userbyid(c.relowner) = ANY(%s)
         GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 1
        """,  # noqa: S608
        [list(trusted)],
    )
    row = await cursor.fetchone()
    return str(row[0]) if row else None


GRANT_COLUMNS = "x.privilege_type, CASE x.grantee WHEN 0 THEN NULL ELSE pg_get_userbyid(x.grantee) END, x.is_grantable"


def _grantor(owner: str) -> str:
    """SQL: who made a grant x, if not the owner."""
    return f"CASE WHEN x.grantor <> {owner} THEN pg_get_userbyid(x.grantor) END"


def _passed_on(grant: Grant, what: str, grantor: str | None) -> list[str]:
    return [f"{grant.privilege} on {what} for {grant.grantee or 'PUBLIC'} by {grantor}"] if grantor else []


async def _things(
    connection: Connection, kind: str, query: str, *, values: Sequence[object] | None = None
) -> list[Thing]:
    statement = f"""
        SELECT t.identity, pg_get_userbyid(t.owner), t.acl IS NULL, {_withheld(_ACL_TYPES[kind], "t.owner", "t.acl")},
               x.grantee = t.owner, {_grantor("t.owner")}, {GRANT_COLUMNS}
          FROM ({query}) AS t LEFT JOIN aclexplode(t.acl) AS x ON true
    """  # noqa: S608
    cursor = await connection.execute(statement, values)
    found: dict[str, Thing] = {}
    for identity, owner, is_default, withheld, is_own, grantor, *grant in await cursor.fetchall():
        if identity not in found:
            found[identity] = Thing(kind, identity, owner, None if is_default else [], _of_owner(owner, withheld))
        thing = found[identity]
        if thing.grants is not None and grant[0] is not None and not is_own:
            thing.grants.append(Grant(*grant))
            thing.passed_on += _passed_on(thing.grants[-1], f"{kind.lower()} {identity}", grantor)
    return list(found.values())


def _withheld(acl_type: str, owner: str, acl: str) -> str:
    """SQL: an array of the privileges that an owner has by default and not here; of none, where all is by default."""
    privileges = "SELECT privilege_type FROM aclexplode({}) WHERE grantee = {}"
    by_default = privileges.format(f"acldefault('{acl_type}', {owner})", owner)
    return f"ARRAY({by_default} AND {acl} IS NOT NULL EXCEPT {privileges.format(acl, owner)} ORDER BY 1)"


def _of_owner(owner: str, privileges: Sequence[str]) -> list[Grant]:
    return [Grant(privilege, owner, with_grant_option=False) for privilege in privileges]


async def _add_column_grants(connection: Connection, things: Sequence[Thing]) -> None:
    tables = {thing.identity: thing for thing in things if thing.kind == "TABLE"}
    cursor = await connection.execute(f"""
        SELECT format('%I.%I', n.nspname, c.relname), {_grantor("c.relowner")}, {GRANT_COLUMNS}, a.attname
          FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
         CROSS JOIN aclexplode(a.attacl) AS x
         WHERE {USER_SCHEMA} AND NOT a.attisdropped
    """)  # noqa: S608
    for identity, grantor, *grant in await cursor.fetchall():
        if table := tables.get(identity):
            table.grants = [*(table.grants or []), Grant(*grant)]
            table.passed_on += _passed_on(table.grants[-1], f"column {identity}.{table.grants[-1].column}", grantor)


async def _default_grants(connection: Connection) -> list[DefaultGrant]:
    cursor = await connection.execute(f"""
        SELECT pg_get_userbyid(d.defaclrole), n.nspname, d.defaclobjtype::text,
               {_withheld_by_default()}, {GRANT_COLUMNS}
          FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace
          LEFT JOIN aclexplode(d.defaclacl) AS x ON x.grantee <> d.defaclrole
    """)  # noqa: S608
    found: dict[tuple[str, str | None, str], DefaultGrant] = {}
    for role, schema, kind, withheld, *grant in await cursor.fetchall():
        one = found.setdefault(
            (role, schema, kind), DefaultGrant(role, schema, kind, [], _of_owner(role, withheld or ()))
        )
        if grant[0] is not None:
            one.grants.append(Grant(*grant))
    return list(found.values())


def _withheld_by_default() -> str:
    """SQL: as `_withheld`, of a row d of pg_default_acl; in a schema they only add to those of everywhere."""
    kinds = {**{kind: kind for kind in "rfTnL"}, "S": "s"}
    cases = [f"WHEN '{kind}' THEN {_withheld(acl, 'd.defaclrole', 'd.defaclacl')}" for kind, acl in kinds.items()]
    return f"CASE d.defaclnamespace WHEN 0 THEN CASE d.defaclobjtype {' '.join(cases)} END END"


async def _add_database_grants(connection: Connection, belongings: Belongings) -> None:
    database = belongings.database
    if database.acl is None:
        return
    cursor = await connection.execute(
        f"SELECT {_grantor('d.datdba')}, {GRANT_COLUMNS}"  # noqa: S608
        "  FROM pg_database d CROSS JOIN aclexplode(d.datacl) AS x WHERE d.oid = %s AND x.grantee <> d.datdba",
        [database.oid],
    )
    belongings.database_grants = []
    for grantor, *grant in await cursor.fetchall():
        belongings.database_grants.append(Grant(*grant))
        belongings.database_passed_on += _passed_on(belongings.database_grants[-1], "the database", grantor)
    cursor = await connection.execute(
        f"SELECT unnest({_withheld('d', 'd.datdba', 'd.datacl')}) FROM pg_database d WHERE d.oid = %s",  # noqa: S608
        [database.oid],
    )
    belongings.database_withheld = _of_owner(database.owner, [name for (name,) in await cursor.fetchall()])
