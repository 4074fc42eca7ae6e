"""What a database has beside its content, read from the old one and given to the new: owners, grants, settings.

An archive brings none of it (its roles are those of another server), and the app is to work as before. So: what exists
in both under the same name gets its old owner and grants; what hangs on the database itself is copied one by one. What
cannot be given is a warning, since the import does not fail for it. Never given: code of the file to an owner who may
do more than the app's role, since a view, a function or a trigger can run with its owner's rights.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import psycopg
from psycopg import sql

from agent.engines.pg.catalog import USER_SCHEMA, DatabaseFacts, no_member
from agent.engines.pg.connection import Connection
from agent.engines.pg.privileges import listed, roles_within

LIST_SETTINGS = {
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
}
"""Those with GUC_LIST_QUOTE: their value is a list of quoted names, and quoting it as one string makes it one name (as
variable_is_guc_list_quote in pg_dump's dumputils.c, PostgreSQL 18)."""
_DEFAULT_KINDS = {
    "r": "TABLES",
    "S": "SEQUENCES",
    "f": "ROUTINES",
    "T": "TYPES",
    "n": "SCHEMAS",
    "L": "LARGE OBJECTS",
}


class Grant(NamedTuple):
    """A privilege on something; `grantee` None is PUBLIC, `columns` empty the whole of it."""

    privilege: str
    grantee: str | None
    with_grant_option: bool
    column: str | None = None


@dataclass
class Thing:
    """A schema, relation, routine or type: where it is found, whose it is, and its grants (None: the default ones)."""

    kind: str
    identity: str
    owner: str
    grants: list[Grant] | None = None


class DefaultGrant(NamedTuple):
    """One row of pg_default_acl; `schema` None: everywhere."""

    role: str
    schema: str | None
    kind: str
    grants: list[Grant]


class Setting(NamedTuple):
    """A setting of the database, or of one role in it."""

    role: str | None
    name: str
    value: str


@dataclass
class Belongings:
    """All that is carried over.

    Attributes:
        content_owner: of `trusted_owners`, who owns most of the tables; else the database's owner or `app_role`.
        app_role: the role that the app itself uses.
        trusted_owners: the roles that may do nothing that `app_role` may not: itself, and roles whose member it is.
    """

    database: DatabaseFacts
    content_owner: str
    app_role: str
    trusted_owners: frozenset[str]
    things: list[Thing] = field(default_factory=list)
    default_grants: list[DefaultGrant] = field(default_factory=list)
    database_grants: list[Grant] | None = None
    settings: list[Setting] = field(default_factory=list)
    labels: list[tuple[str, str]] = field(default_factory=list)
    """Provider and label of the database's security labels."""


_KINDS = {
    "TABLE": f"""
        SELECT c.oid, format('%I.%I', n.nspname, c.relname) AS identity, c.relowner AS owner, c.relacl AS acl
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE {USER_SCHEMA} AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND {no_member("pg_class", "c.oid")}
    """,  # noqa: S608  # conditions of catalog.py, here and below
    # A column's own sequence follows its table and cannot be given away alone.
    "SEQUENCE": f"""
        SELECT c.oid, format('%I.%I', n.nspname, c.relname) AS identity,
               CASE WHEN EXISTS (SELECT FROM pg_depend o WHERE o.classid = 'pg_class'::regclass AND o.objid = c.oid
                                    AND o.refclassid = 'pg_class'::regclass AND o.deptype IN ('a', 'i'))
                    THEN 0 ELSE c.relowner END AS owner, c.relacl AS acl
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
_RESOLVERS = {
    "TABLE": ("to_regclass", "pg_class"),
    "SEQUENCE": ("to_regclass", "pg_class"),
    "SCHEMA": ("to_regnamespace", "pg_namespace"),
    "ROUTINE": ("to_regprocedure", "pg_proc"),
    "TYPE": ("to_regtype", "pg_type"),
}
_WITHOUT_CODE = ("SCHEMA", "SEQUENCE")
"""Nothing of these runs with their owner's rights."""


async def read_belongings(connection: Connection, database: DatabaseFacts, *, app_role: str) -> Belongings:
    """What the old database has.

    Args:
        connection: to the old database itself, of the role that will give everything to the new one.
    Raises:
        AppUnavailableError: there is no role `app_role`.
    """
    trusted = await roles_within(connection, app_role)
    owner = await _content_owner(connection, trusted) or (database.owner if database.owner in trusted else app_role)
    found = Belongings(database, owner, app_role, trusted)
    for kind, query in _KINDS.items():
        found.things += await _things(connection, kind, query)
    await _add_column_grants(connection, found.things)
    found.default_grants = await _default_grants(connection)
    found.database_grants = await _database_grants(connection, database)
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


_GRANT_COLUMNS = "x.privilege_type, CASE x.grantee WHEN 0 THEN NULL ELSE pg_get_userbyid(x.grantee) END, x.is_grantable"


async def _things(connection: Connection, kind: str, query: str) -> list[Thing]:
    cursor = await connection.execute(f"""
        SELECT t.identity, CASE t.owner WHEN 0 THEN '' ELSE pg_get_userbyid(t.owner) END, t.acl IS NULL,
               x.grantee = t.owner, {_GRANT_COLUMNS}
          FROM ({query}) AS t LEFT JOIN aclexplode(t.acl) AS x ON true
    """)  # noqa: S608
    found: dict[str, Thing] = {}
    for identity, owner, is_default, is_own, *grant in await cursor.fetchall():
        thing = found.setdefault(identity, Thing(kind, identity, owner, None if is_default else []))
        if thing.grants is not None and grant[0] is not None and not is_own:
            thing.grants.append(Grant(*grant))
    return list(found.values())


async def _add_column_grants(connection: Connection, things: Sequence[Thing]) -> None:
    tables = {thing.identity: thing for thing in things if thing.kind == "TABLE"}
    cursor = await connection.execute(f"""
        SELECT format('%I.%I', n.nspname, c.relname), {_GRANT_COLUMNS}, a.attname
          FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
         CROSS JOIN aclexplode(a.attacl) AS x
         WHERE {USER_SCHEMA} AND NOT a.attisdropped AND x.grantee <> c.relowner
    """)  # noqa: S608
    for identity, *grant in await cursor.fetchall():
        if table := tables.get(identity):
            table.grants = [*(table.grants or []), Grant(*grant)]


async def _default_grants(connection: Connection) -> list[DefaultGrant]:
    cursor = await connection.execute(f"""
        SELECT pg_get_userbyid(d.defaclrole), n.nspname, d.defaclobjtype::text, {_GRANT_COLUMNS}
          FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace
          LEFT JOIN aclexplode(d.defaclacl) AS x ON x.grantee <> d.defaclrole
    """)  # noqa: S608
    found: dict[tuple[str, str | None, str], list[Grant]] = defaultdict(list)
    for role, schema, kind, *grant in await cursor.fetchall():
        grants = found[role, schema, kind]
        if grant[0] is not None:
            grants.append(Grant(*grant))
    return [DefaultGrant(*key, grants) for key, grants in found.items()]


async def _database_grants(connection: Connection, database: DatabaseFacts) -> list[Grant] | None:
    if database.acl is None:
        return None
    cursor = await connection.execute(
        f"SELECT {_GRANT_COLUMNS} FROM pg_database d CROSS JOIN aclexplode(d.datacl) AS x"  # noqa: S608
        " WHERE d.oid = %s AND x.grantee <> d.datdba",
        [database.oid],
    )
    return [Grant(*row) for row in await cursor.fetchall()]


class Gift(NamedTuple):
    """A statement that gives something, and what that is, for a warning when it fails."""

    what: str
    statement: sql.Composed


async def give_belongings(connection: Connection, belongings: Belongings, *, name: str) -> list[str]:
    """Make a loaded database like the old one.

    Args:
        connection: to the new database, of a superuser or of a role with the rights of both owners.
        name: the new database's, as it is called now.
    Returns:
        Warnings, one sentence each.
    """
    things = await _existing(connection, belongings)
    warnings = _kept_from_owners(belongings, things)
    for gift in [*gifts_of_things(belongings, things), *_gifts_of_database(belongings, sql.Identifier(name))]:
        try:
            await connection.execute(gift.statement)
        except (psycopg.errors.ProgrammingError, psycopg.errors.DataError, psycopg.errors.NotSupportedError) as failure:
            warnings.append(f"{gift.what} could not be carried over: {failure.diag.message_primary}")
    return warnings


async def _existing(connection: Connection, belongings: Belongings) -> list[Thing]:
    """What there is to do in the new database: things that it has."""
    found = []
    for kind, (resolver, catalog) in _RESOLVERS.items():
        special = [thing for thing in special_things(belongings) if thing.kind == kind]
        cursor = await connection.execute(
            f"SELECT identity FROM unnest(%s::text[]) AS identity WHERE {resolver}(identity) IS NOT NULL"  # noqa: S608
            f" AND {no_member(catalog, f'{resolver}(identity)')}",
            [[thing.identity for thing in special]],
        )
        there = {identity for (identity,) in await cursor.fetchall()}
        found += [thing for thing in special if thing.identity in there]
    return found


def special_things(belongings: Belongings) -> list[Thing]:
    """Things that are not as they would be anyway."""
    return [
        thing
        for thing in belongings.things
        if thing.owner not in ("", belongings.content_owner) or thing.grants is not None
    ]


def gifts_of_things(belongings: Belongings, things: Sequence[Thing]) -> list[Gift]:
    """Owners and grants of things, and default grants."""
    return [
        *(gift for thing in things for gift in _gifts_of_thing(thing, belongings)),
        *(gift for default in belongings.default_grants for gift in _default_gifts(default)),
    ]


def _may_own(belongings: Belongings, thing: Thing) -> bool:
    return thing.owner in belongings.trusted_owners or thing.kind in _WITHOUT_CODE


def _kept_from_owners(belongings: Belongings, things: Sequence[Thing]) -> list[str]:
    """Warnings of what does not go back to its owner."""
    kept: dict[str, list[str]] = defaultdict(list)
    for thing in things:
        if thing.owner and not _may_own(belongings, thing):
            kept[thing.owner].append(f"{thing.kind.lower()} {thing.identity}")
    return [
        f"What the file has under these names will belong to {belongings.content_owner}, not to {owner} as before,"
        f" since code of a file must not run with rights that the app's role {belongings.app_role} does not have:"
        f" {listed(names)}."
        for owner, names in sorted(kept.items())
    ]


def _gifts_of_thing(thing: Thing, belongings: Belongings) -> list[Gift]:
    kind, identity = sql.SQL(thing.kind), sql.SQL(thing.identity)  # quoted by the server
    what = f"{thing.kind.lower()} {thing.identity}"
    gifts = []
    if thing.owner not in ("", belongings.content_owner) and _may_own(belongings, thing):
        statement = sql.SQL("ALTER {} {} OWNER TO {}").format(kind, identity, sql.Identifier(thing.owner))
        gifts.append(Gift(f"The owner of {what}", statement))
    if thing.grants is not None:
        gifts += _grants(thing.grants, sql.SQL("{} {}").format(kind, identity), what)
    return gifts


def _grants(grants: Sequence[Grant], target: sql.Composable, what: str) -> list[Gift]:
    """Replace the default grants of a target."""
    gifts = []
    if not any(grant.column for grant in grants):
        gifts.append(Gift(f"Grants on {what}", sql.SQL("REVOKE ALL ON {} FROM PUBLIC").format(target)))
    for grant in grants:
        who = grant.grantee or "PUBLIC"
        gifts.append(Gift(f"{grant.privilege} on {what} for {who}", _grant_statement(grant, target)))
    return gifts


def _grant_statement(grant: Grant, target: sql.Composable) -> sql.Composed:
    privilege: sql.Composable = sql.SQL(grant.privilege)  # a keyword from the server
    if grant.column:
        privilege = sql.SQL("{} ({})").format(privilege, sql.Identifier(grant.column))
    return sql.SQL("GRANT {} ON {} TO {}{}").format(
        privilege,
        target,
        sql.Identifier(grant.grantee) if grant.grantee else sql.SQL("PUBLIC"),
        sql.SQL(" WITH GRANT OPTION" if grant.with_grant_option else ""),
    )


def _default_gifts(default: DefaultGrant) -> list[Gift]:
    kind = _DEFAULT_KINDS.get(default.kind)
    if kind is None:
        return []
    where = sql.SQL("ALTER DEFAULT PRIVILEGES FOR ROLE {}").format(sql.Identifier(default.role))
    if default.schema is not None:
        where = sql.SQL("{} IN SCHEMA {}").format(where, sql.Identifier(default.schema))
    what = f"Default grants of {default.role}"
    target = sql.SQL(kind)
    gifts = []
    if default.schema is None:
        gifts.append(Gift(what, sql.SQL("{} REVOKE ALL ON {} FROM PUBLIC").format(where, target)))
    for grant in default.grants:
        gifts.append(Gift(what, sql.SQL("{} {}").format(where, _grant_statement(grant, target))))
    return gifts


def _gifts_of_database(belongings: Belongings, name: sql.Identifier) -> list[Gift]:
    gifts = []
    if belongings.database_grants is not None:
        gifts += _grants(belongings.database_grants, sql.SQL("DATABASE {}").format(name), "the database")
    for setting in belongings.settings:
        gifts.append(Gift(f"The setting {setting.name}", _setting_statement(setting, name)))
    for provider, label in belongings.labels:
        statement = sql.SQL("SECURITY LABEL FOR {} ON DATABASE {} IS {}")
        gifts.append(Gift("A security label", statement.format(sql.Identifier(provider), name, label)))
    limit = sql.Literal(belongings.database.connection_limit)
    statement = sql.SQL("ALTER DATABASE {} CONNECTION LIMIT {}")
    gifts.append(Gift("The connection limit", statement.format(name, limit)))
    return gifts


def _setting_statement(setting: Setting, name: sql.Identifier) -> sql.Composed:
    values = split_list(setting.value) if setting.name in LIST_SETTINGS else [setting.value]
    return sql.SQL("{} SET {} TO {}").format(
        sql.SQL("ALTER DATABASE {}").format(name)
        if setting.role is None
        else sql.SQL("ALTER ROLE {} IN DATABASE {}").format(sql.Identifier(setting.role), name),
        sql.Identifier(setting.name),
        sql.SQL(", ").join(map(sql.Literal, values)),
    )


def split_list(value: str) -> list[str]:
    """Elements of a list setting, `"$user", public`, without their quotes (SplitGUCList in varlena.c)."""
    elements, position = [], 0
    while position < len(value):
        if value[position] == '"':
            element = ""
            while (end := value.index('"', position + 1)) + 1 < len(value) and value[end + 1] == '"':
                element += value[position + 1 : end + 1]
                position = end + 1
            elements.append(element + value[position + 1 : end])
            position = end + 1
        elif value[position] in ", ":
            position += 1
        else:
            end = min(at for at in (value.find(",", position), len(value)) if at >= 0)
            elements.append(value[position:end].strip())
            position = end
    return elements or [""]
