"""What a database has beside its content is given to the new one.

An archive brings none of it (its roles are those of another server), and the app is to work as before. So: what exists
in both under the same name gets its old owner and grants; what hangs on the database itself is copied one by one. What
cannot be given is a warning, since the import does not fail for it. Never given: code of the file to an owner who may
do more than the app's role, since a view, a function or a trigger can run with its owner's rights.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import NamedTuple

import psycopg
from psycopg import sql

from agent.engines.pg.belongings.read import (
    LARGE_OBJECT,
    MOST_LARGE_OBJECTS,
    OF_OWNERS,
    PUBLICATION,
    WRAPPER,
    Belongings,
    DefaultGrant,
    Grant,
    Setting,
    Thing,
    extensions,
    schema_public,
    things_of_owners,
)
from agent.engines.pg.server.catalog import no_member
from agent.engines.pg.server.connection import Connection
from agent.engines.pg.server.privileges import listed

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
_RESOLVERS = {
    "TABLE": ("to_regclass", "pg_class"),
    "SEQUENCE": ("to_regclass", "pg_class"),
    "SCHEMA": ("to_regnamespace", "pg_namespace"),
    "ROUTINE": ("to_regprocedure", "pg_proc"),
    "TYPE": ("to_regtype", "pg_type"),
}
_SET_ROLE_SINCE = 160_000
"""The version since which a member may not always act as the role."""
_SCHEMA_OF = re.compile(r'(?:"(?:[^"]|"")+"|[^".]+)(?=\.)')
"""At the beginning of what the server quoted."""
_WITHOUT_CODE = frozenset({LARGE_OBJECT, "SCHEMA", "SEQUENCE", *OF_OWNERS})
"""Nothing of these runs with their owner's rights."""


class Gift(NamedTuple):
    """A statement that gives something, and what that is, for a warning when it fails.

    Attributes:
        lending: what is done before it, and taken back after it, where it alone is not allowed; or nothing.
    """

    what: str
    statement: sql.Composed
    lending: tuple[sql.Composed, sql.Composed] | None = None


async def give_belongings(connection: Connection, belongings: Belongings, *, name: str) -> list[str]:
    """Make a loaded database like the old one.

    Args:
        connection: to the new database, of a superuser or of a role with the rights of both owners.
        name: the new database's, as it is called now.
    Returns:
        Warnings, one sentence each.
    """
    things = await things_in_both(connection, belongings)
    warnings = [
        *_kept_from_owners(belongings, things),
        *await _unprotected(connection, belongings, things),
        *_of_grantors([*belongings.database_passed_on, *(one for thing in things for one in thing.passed_on)]),
    ]
    if belongings.has_more_large_objects:
        warnings.append(
            "Owners and grants of large objects were not carried over: more than "
            f"{MOST_LARGE_OBJECTS:,} have some of their own. All belong to {belongings.content_owner}."
        )
    public = [thing for thing in things if _is_public(thing)]
    publications = [thing for thing in things if thing.kind == PUBLICATION]
    others = [thing for thing in things if not _is_public(thing) and thing.kind != PUBLICATION]
    for gift in [
        *gifts_of_things(belongings, others),
        *_gifts_of_database(belongings, sql.Identifier(name)),
        # Their owners have to have CREATE on the database.
        *(gift for thing in publications for gift in _gifts_of_thing(thing, belongings)),
    ]:
        try:
            await _give(connection, gift)
        except (psycopg.errors.ProgrammingError, psycopg.errors.DataError, psycopg.errors.NotSupportedError) as failure:
            warnings.append(f"{gift.what} could not be carried over: {failure.diag.message_primary}")
    for thing in public:
        warnings += await _give_public(connection, belongings, thing)
    return [*warnings, *await _of_extensions(connection, belongings)]


async def _of_extensions(connection: Connection, belongings: Belongings) -> list[str]:
    """A warning of those that a file makes anew: in the version that is usual here, and for who loads it."""
    now = await extensions(connection)
    changed = []
    for name in sorted(belongings.extensions.keys() & now.keys()):
        (old_version, old_owner), (version, owner) = belongings.extensions[name], now[name]
        said = [f"version {version}, not {old_version}"] if version != old_version else []
        said += [f"belongs to {owner}, not to {old_owner}"] if owner != old_owner else []
        if said:
            changed.append(f"{name} ({'; '.join(said)})")
    if not changed:
        return []
    return [f"These extensions are made anew, and not as they are in the app's database now: {listed(changed)}."]


async def _give(connection: Connection, gift: Gift) -> None:
    try:
        await connection.execute(gift.statement)
    except psycopg.errors.InsufficientPrivilege:
        if gift.lending is None:
            raise
        lend, take_back = gift.lending
        async with connection.transaction():
            for statement in (lend, gift.statement, take_back):
                await connection.execute(statement)


async def _give_public(connection: Connection, belongings: Belongings, wanted: Thing) -> list[str]:
    """Make schema public like the old one. The server made it, with an owner of its own, and says in no more than a
    notice what a role may not take away there.
    """
    schema = sql.SQL("SCHEMA {}").format(sql.Identifier(wanted.identity))
    gifts = [
        Gift("", sql.SQL("ALTER {} OWNER TO {}").format(schema, sql.Identifier(wanted.owner))),
        *grants_on(schema, wanted.grants or [], ""),
        *withheld_on(schema, wanted.withheld, ""),
    ]
    for gift in gifts:
        with suppress(psycopg.errors.InsufficientPrivilege):
            await connection.execute(gift.statement)
    present = await schema_public(connection)
    if present is None or _owner_and_grants(present) == _owner_and_grants(wanted):
        return []
    statements = "; ".join(gift.statement.as_string(connection) for gift in gifts)
    return [
        "Schema public has not the owner and grants that it has in the app's database, since its owner here is "
        f"{present.owner} and only a superuser may change that. One makes it so, in database "
        f"{belongings.database.name} after the import: {statements}."
    ]


def _owner_and_grants(thing: Thing) -> tuple[str, set[Grant], list[Grant]]:
    return thing.owner, set(thing.grants or ()), thing.withheld


async def things_in_both(connection: Connection, belongings: Belongings) -> list[Thing]:
    """What there is to do in the new, connected database: things that it has and that are not as they would be."""
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
    if special := [thing for thing in special_things(belongings) if thing.kind in OF_OWNERS]:
        of_owners = {(thing.kind, thing.identity) for thing in await things_of_owners(connection)}
        found += [thing for thing in special if (thing.kind, thing.identity) in of_owners]
    return [
        *found,
        *await _existing_wrappers(connection, belongings),
        *await _existing_large_objects(connection, belongings),
    ]


async def _existing_large_objects(connection: Connection, belongings: Belongings) -> list[Thing]:
    cursor = await connection.execute(
        "SELECT oid::text FROM pg_largeobject_metadata WHERE oid = ANY(%s::oid[])",
        [[thing.identity for thing in belongings.large_objects]],
    )
    there = {identity for (identity,) in await cursor.fetchall()}
    return [thing for thing in belongings.large_objects if thing.identity in there]


async def _existing_wrappers(connection: Connection, belongings: Belongings) -> list[Thing]:
    """Those of extensions too, as nearly all are: no file can make one."""
    cursor = await connection.execute("SELECT quote_ident(fdwname) FROM pg_foreign_data_wrapper")
    there = {identity for (identity,) in await cursor.fetchall()}
    return [thing for thing in special_things(belongings) if thing.kind == WRAPPER and thing.identity in there]


def special_things(belongings: Belongings) -> list[Thing]:
    """Things that are not as they would be anyway; schema public, which the server makes in its own way, always."""
    return [
        thing
        for thing in belongings.things
        if thing.owner not in ("", belongings.content_owner) or thing.grants is not None or _is_public(thing)
    ]


def _is_public(thing: Thing) -> bool:
    return (thing.kind, thing.identity) == ("SCHEMA", "public")


def gifts_of_things(belongings: Belongings, things: Sequence[Thing]) -> list[Gift]:
    """Owners and grants of things, and default grants; last what owners have not, which all before may need."""
    in_schemas = [thing for thing in things if thing.kind != "SCHEMA"]
    return [
        *(gift for thing in things for gift in _gifts_of_thing(thing, belongings)),
        *(gift for default in belongings.default_grants for gift in _default_gifts(default)),
        *(gift for thing in in_schemas for gift in _withheld_gifts(thing)),
        *(gift for thing in things if thing.kind == "SCHEMA" for gift in _withheld_gifts(thing)),
    ]


def _withheld_gifts(thing: Thing) -> list[Gift]:
    """What is withheld, and columns that the owner has all the same: to take a table's privilege takes those too."""
    target = sql.SQL("{} {}").format(sql.SQL(thing.kind), sql.SQL(thing.identity))  # quoted by the server
    what = f"{thing.kind.lower()} {thing.identity}"
    own = [grant for grant in thing.grants or () if grant.grantee == thing.owner]
    return [*withheld_on(target, thing.withheld, what), *(_gift_of_grant(grant, target, what) for grant in own)]


def withheld_on(target: sql.Composable, withheld: Sequence[Grant], what: str) -> list[Gift]:
    """Take from the owner of a target what it had not."""
    return [
        Gift(
            f"That {grant.grantee} has not {grant.privilege} on {what}", grant_statement(grant, target, takes_away=True)
        )
        for grant in withheld
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


def _of_grantors(passed_on: Sequence[str]) -> list[str]:
    """A warning of grants that would have to be made in the name of somebody else."""
    if not passed_on:
        return []
    return [
        "These grants were made by others than the owner, who had the right to pass them on; after the import they are "
        f"the owner's: {listed(passed_on)}."
    ]


async def warnings_of_owners(
    connection: Connection, belongings: Belongings, *, new_schemas: Collection[str]
) -> list[str]:
    """What will not go back to its owner within the database.

    Args:
        connection: to the app's database, of the role that will load.
        new_schemas: those that the import brings, which are that role's own.
    """
    others = [
        thing
        for thing in [*special_things(belongings), *belongings.large_objects]
        if thing.owner not in ("", belongings.content_owner) and thing.kind not in ("SCHEMA", PUBLICATION)
    ]
    possible = [thing for thing in others if _may_own(belongings, thing)]
    may_set = "SET" if connection.info.server_version >= _SET_ROLE_SINCE else "MEMBER"
    cursor = await connection.execute(
        f"""
        SELECT owner, name
          FROM unnest(%s::text[], %s::text[], %s::text[]) AS thing (owner, schema, name)
          LEFT JOIN pg_namespace n ON n.oid = to_regnamespace(nullif(schema, ''))
         WHERE NOT pg_has_role(owner, '{may_set}')
            OR NOT (n.nspname = ANY(%s) OR has_schema_privilege(owner, n.oid, 'CREATE')
                    OR has_schema_privilege(n.oid, 'CREATE WITH GRANT OPTION'))
         ORDER BY owner, name
        """,  # noqa: S608  # one of two words
        [
            [thing.owner for thing in possible],
            [_schema_of(thing) for thing in possible],
            [f"{thing.kind.lower()} {thing.identity}" for thing in possible],
            list(new_schemas),
        ],
    )
    kept: dict[str, list[str]] = defaultdict(list)
    for owner, name in await cursor.fetchall():
        kept[owner].append(name)
    return [
        *_kept_from_owners(belongings, others),
        *(
            f"What the file has under these names will belong to {belongings.content_owner}, not to {owner} as before, "
            f"since here only a superuser may give it: {listed(names)}. One lets {owner} make things in their schemas "
            "before the import (GRANT CREATE ON SCHEMA … TO …), or gives them back after it (ALTER … OWNER TO …)."
            for owner, names in kept.items()
        ),
        *_of_grantors([one for thing in special_things(belongings) for one in thing.passed_on]),
    ]


async def _unprotected(connection: Connection, belongings: Belongings, things: Sequence[Thing]) -> list[str]:
    """A warning of tables that hid rows from the app's role and now belong to it: policies do not apply to an owner."""
    kept = [one.identity for one in things if one.kind == "TABLE" and one.owner and not _may_own(belongings, one)]
    cursor = await connection.execute(
        "SELECT identity FROM unnest(%s::text[]) AS identity JOIN pg_class c ON c.oid = to_regclass(identity)"
        " WHERE c.relkind IN ('r', 'p') AND c.relrowsecurity AND NOT c.relforcerowsecurity",
        [kept],
    )
    names = [name for (name,) in await cursor.fetchall()]
    if not names:
        return []
    return [
        f"Row security hides no rows of these tables from {belongings.content_owner} as long as they belong to it; "
        f"give them back to their owner, or ALTER TABLE … FORCE ROW LEVEL SECURITY: {listed(names)}."
    ]


def _gifts_of_thing(thing: Thing, belongings: Belongings) -> list[Gift]:
    kind, identity = sql.SQL(thing.kind), sql.SQL(thing.identity)  # quoted by the server
    what = f"{thing.kind.lower()} {thing.identity}"
    gifts = []
    if thing.owner not in ("", belongings.content_owner) and _may_own(belongings, thing):
        statement = sql.SQL("ALTER {} {} OWNER TO {}").format(kind, identity, sql.Identifier(thing.owner))
        gifts.append(Gift(f"The owner of {what}", statement, _lending(thing)))
    if thing.grants is not None:
        of_others = [grant for grant in thing.grants if grant.grantee != thing.owner]
        gifts += grants_on(sql.SQL("{} {}").format(kind, identity), of_others, what)
    return gifts


def _lending(thing: Thing) -> tuple[sql.Composed, sql.Composed] | None:
    """A role gets what it may not make itself, since it may not make anything in the schema, from superusers alone."""
    schema = _schema_of(thing)
    if not schema:
        return None
    target = sql.SQL("SCHEMA {}").format(sql.SQL(schema))
    create = Grant("CREATE", thing.owner, with_grant_option=False)
    return grant_statement(create, target), grant_statement(create, target, takes_away=True)


def _schema_of(thing: Thing) -> str:
    """Its schema as the server quotes it; empty: it is in none."""
    found = _SCHEMA_OF.match(thing.identity)
    return found[0] if found else ""


def grants_on(target: sql.Composable, grants: Sequence[Grant], what: str) -> list[Gift]:
    """Replace the default grants of a target."""
    gifts = []
    if not any(grant.column for grant in grants):
        gifts.append(Gift(f"Grants on {what}", sql.SQL("REVOKE ALL ON {} FROM PUBLIC").format(target)))
    return gifts + [_gift_of_grant(grant, target, what) for grant in grants]


def _gift_of_grant(grant: Grant, target: sql.Composable, what: str) -> Gift:
    return Gift(f"{grant.privilege} on {what} for {grant.grantee or 'PUBLIC'}", grant_statement(grant, target))


def grant_statement(grant: Grant, target: sql.Composable, *, takes_away: bool = False) -> sql.Composed:
    """GRANT, or the REVOKE of the same."""
    privilege: sql.Composable = sql.SQL(grant.privilege)  # a keyword from the server
    if grant.column:
        privilege = sql.SQL("{} ({})").format(privilege, sql.Identifier(grant.column))
    who = sql.Identifier(grant.grantee) if grant.grantee else sql.SQL("PUBLIC")
    if takes_away:
        return sql.SQL("REVOKE {} ON {} FROM {} CASCADE").format(privilege, target, who)
    option = sql.SQL(" WITH GRANT OPTION" if grant.with_grant_option else "")
    return sql.SQL("GRANT {} ON {} TO {}{}").format(privilege, target, who, option)


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
        gifts.append(Gift(what, sql.SQL("{} {}").format(where, grant_statement(grant, target))))
    for grant in default.withheld:
        gifts.append(Gift(what, sql.SQL("{} {}").format(where, grant_statement(grant, target, takes_away=True))))
    return gifts


def _gifts_of_database(belongings: Belongings, name: sql.Identifier) -> list[Gift]:
    gifts = []
    if belongings.database_grants is not None:
        target = sql.SQL("DATABASE {}").format(name)
        gifts += grants_on(target, belongings.database_grants, "the database")
        gifts += withheld_on(target, belongings.database_withheld, "the database")
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
    return sql.SQL("{} SET {} TO {}").format(
        sql.SQL("ALTER DATABASE {}").format(name)
        if setting.role is None
        else sql.SQL("ALTER ROLE {} IN DATABASE {}").format(sql.Identifier(setting.role), name),
        sql.Identifier(setting.name),
        setting_value(setting.name, setting.value),
    )


def setting_value(name: str, value: str) -> sql.Composed:
    """What stands behind TO, for a value as the catalog has it."""
    values = split_list(value) if name in LIST_SETTINGS else [value]
    return sql.SQL(", ").join(map(sql.Literal, values))


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
