"""What is beside a database that its role could change: other databases of the role, the role itself, their settings.

It is looked at as single facts, so that what differs can be named, and put back by the statement that makes it so.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import NamedTuple

import psycopg
from psycopg import sql

from agent.engines.pg.belongings.carry_over import setting_value
from agent.engines.pg.server.connection import Connection

_MOST_VALUE_CHARACTERS = 60
_ROUNDS = 3
"""An owner that is put back changes the grants again, and a name is needed for all else."""


class Key(NamedTuple):
    """What a fact is about.

    Attributes:
        kind: one of `_KINDS`.
        subject: a database's oid, or a role's name.
        detail: which of several of the kind, as SQL has it.
        place: for settings: the database's oid (its name, where another's), empty for all; for grants and members: the
            other role.
    """

    kind: str
    subject: str
    detail: str = ""
    place: str = ""


Outside = Mapping[Key, str]
"""Facts; one that is missing is not so."""

_DATABASE_OPTIONS = {
    "allow connections": "ALLOW_CONNECTIONS",
    "is template": "IS_TEMPLATE",
    "connection limit": "CONNECTION LIMIT",
}
_KINDS = ["name", "owner", *_DATABASE_OPTIONS, "comment", "grant", "setting", "member", "role"]
"""In the order in which they are put back."""


class Difference(NamedTuple):
    """A fact that became another; None where there is none."""

    key: Key
    before: str | None
    now: str | None
    sentence: str
    """For a person: "name of database shop: shop became mine"."""
    remedy: list[sql.Composed]
    """Statements that put it back; none for what this role could not have changed."""


async def look_outside(connection: Connection, known: Outside | None = None) -> Outside:
    """What the connected role could change.

    Args:
        known: what was seen before; only its databases are looked at. Else all but those of imports: a file can make
            none, and other imports may go on.
    """
    oids = None if known is None else [int(key.subject) for key in known if key.kind == "name"]
    cursor = await connection.execute(
        """
        WITH d AS (SELECT * FROM pg_database
                    WHERE CASE WHEN %(oids)s::oid[] IS NULL
                               THEN pg_has_role(datdba, 'USAGE') AND datname !~ '^mathison_new_'
                               ELSE oid = ANY(%(oids)s::oid[]) END),
             me AS (SELECT * FROM pg_roles WHERE rolname = current_user)
        SELECT f.kind, d.oid::text, '', '', f.value
          FROM d CROSS JOIN LATERAL (VALUES
               ('name', datname::text), ('owner', pg_get_userbyid(datdba)), ('allow connections', datallowconn::text),
               ('is template', datistemplate::text), ('connection limit', datconnlimit::text),
               ('comment', shobj_description(d.oid, 'pg_database'))) AS f (kind, value)
         WHERE f.value IS NOT NULL
        UNION ALL
        SELECT 'grant', d.oid::text, x.privilege_type, coalesce(r.rolname, ''),
               CASE WHEN bool_or(x.is_grantable) THEN 'with grant option' ELSE 'granted' END
          FROM d CROSS JOIN aclexplode(coalesce(datacl, acldefault('d', datdba))) AS x
          LEFT JOIN pg_roles r ON r.oid = x.grantee
         GROUP BY d.oid, x.privilege_type, r.rolname
        UNION ALL
        SELECT 'setting', coalesce(r.rolname, ''), split_part(entry, '=', 1),
               coalesce(d.oid::text, others.datname, ''), substr(entry, strpos(entry, '=') + 1)
          FROM pg_db_role_setting CROSS JOIN unnest(setconfig) AS entry LEFT JOIN pg_roles r ON r.oid = setrole
          LEFT JOIN d ON d.oid = setdatabase LEFT JOIN pg_database others ON others.oid = setdatabase
         WHERE d.oid IS NOT NULL
            OR r.rolname = current_user AND coalesce(others.datname, '') !~ '^mathison_new_'
        UNION ALL
        SELECT 'member', pg_get_userbyid(member), '', pg_get_userbyid(roleid),
               CASE WHEN bool_or(admin_option) THEN 'with admin option' ELSE 'granted' END
          FROM pg_auth_members WHERE (SELECT oid FROM me) IN (member, roleid) GROUP BY member, roleid
        UNION ALL
        SELECT 'role', me.rolname, f.key, '', f.value
          FROM me CROSS JOIN jsonb_each_text(to_jsonb(me) - 'rolconfig') AS f WHERE f.value IS NOT NULL
        """,
        {"oids": oids},
    )
    return {Key(kind, subject, detail, place): value for kind, subject, detail, place, value in await cursor.fetchall()}


def differences(before: Outside, now: Outside) -> list[Difference]:
    """What is not as before, in the order in which it is put back."""
    names = {key.subject: value for key, value in [*before.items(), *now.items()] if key.kind == "name"}
    changed = [key for key in before.keys() | now.keys() if before.get(key) != now.get(key)]
    return [
        Difference(
            key,
            was := before.get(key),
            found := now.get(key),
            f"{_name_of(key, names, before)}: {_clipped(was)} became {_clipped(found)}",
            _remedy(key, was, found, names),
        )
        for key in sorted(changed, key=lambda key: (_KINDS.index(key.kind), key))
    ]


async def put_back(connection: Connection, before: Outside) -> list[Difference]:
    """Make what differs as it was.

    Args:
        connection: of the role, opened before it was changed: it does not need the password or be let in again.
    Returns:
        What could not be put back.
    """
    left = differences(before, await look_outside(connection, before))
    for _ in range(_ROUNDS):
        if not left:
            break
        await _rename_back(connection, [one for one in left if one.key.kind == "name"])
        for one in left:
            if one.key.kind != "name":
                await _try(connection, one.remedy)
        left = differences(before, await look_outside(connection, before))
    return left


async def _rename_back(connection: Connection, renamed: Iterable[Difference]) -> None:
    """All at once, over names that no file can have taken before: two databases may have exchanged theirs."""
    there = [
        (f"mathison_back_{secrets.token_hex(6)}", one.before, one.now) for one in renamed if one.before and one.now
    ]
    aside = [_rename(now, free) for free, _, now in there]
    await _try(connection, [*aside, *(_rename(free, before) for free, before, _ in there)])


async def _try(connection: Connection, statements: list[sql.Composed]) -> None:
    """All of them or none; what fails is seen by looking again."""
    with suppress(psycopg.errors.DatabaseError):
        async with connection.transaction():
            for statement in statements:
                await connection.execute(statement)


def _rename(name: str, to: str) -> sql.Composed:
    return sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(name), sql.Identifier(to))


def _remedy(key: Key, before: str | None, now: str | None, names: Mapping[str, str]) -> list[sql.Composed]:
    name = names.get(key.subject, "")
    database = sql.SQL("ALTER DATABASE {}").format(sql.Identifier(name))
    match key.kind:
        case "name" if before and now:
            return [_rename(now, before)]
        case "owner" if before:
            return [sql.SQL("{} OWNER TO {}").format(database, sql.Identifier(before))]
        case "connection limit" | "allow connections" | "is template" if before:
            return [sql.SQL("{} {} {}").format(database, sql.SQL(_DATABASE_OPTIONS[key.kind]), sql.SQL(before))]
        case "comment":
            return [sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(name), sql.Literal(before))]
        case "grant":
            on = sql.SQL("{} ON DATABASE {}").format(sql.SQL(key.detail), sql.Identifier(name))
            role = sql.Identifier(key.place) if key.place else sql.SQL("PUBLIC")
            option = sql.SQL(" WITH GRANT OPTION" if before == "with grant option" else "")
            return [
                *([sql.SQL("REVOKE {} FROM {} CASCADE").format(on, role)] if now else []),
                *([sql.SQL("GRANT {} TO {}{}").format(on, role, option)] if before else []),
            ]
        case "setting":
            return [_setting(key, before, names)]
        case "member":
            role, member = sql.Identifier(key.place), sql.Identifier(key.subject)
            option = sql.SQL(" WITH ADMIN OPTION" if before == "with admin option" else "")
            return [
                *([sql.SQL("REVOKE {} FROM {}").format(role, member)] if now else []),
                *([sql.SQL("GRANT {} TO {}{}").format(role, member, option)] if before else []),
            ]
    return []


def _setting(key: Key, before: str | None, names: Mapping[str, str]) -> sql.Composed:
    database = sql.SQL("DATABASE {}").format(sql.Identifier(names.get(key.place, key.place)))
    where = database
    if key.subject:
        where = sql.SQL("ROLE {}").format(sql.Identifier(key.subject))
        if key.place:
            where = sql.SQL("{} IN {}").format(where, database)
    if before is None:
        return sql.SQL("ALTER {} RESET {}").format(where, sql.Identifier(key.detail))
    return sql.SQL("ALTER {} SET {} TO {}").format(where, sql.Identifier(key.detail), setting_value(key.detail, before))


def _name_of(key: Key, names: Mapping[str, str], before: Outside) -> str:
    known = {**names, **{one.subject: value for one, value in before.items() if one.kind == "name"}}
    database = f"database {known.get(key.subject, key.subject)}"
    match key.kind:
        case "grant":
            return f"{key.detail} on {database} for {key.place or 'PUBLIC'}"
        case "setting":
            of = [f"role {key.subject}"] if key.subject else []
            of += [f"database {known.get(key.place, key.place)}"] if key.place else []
            return f"setting {key.detail} of {' in '.join(of)}"
        case "member":
            return f"membership of role {key.subject} in {key.place}"
        case "role":
            return f"{key.detail} of role {key.subject}"
    return f"{key.kind} of {database}"


def _clipped(value: str | None) -> str:
    if value is None:
        return "none"
    return value if len(value) <= _MOST_VALUE_CHARACTERS else f"{value[:_MOST_VALUE_CHARACTERS]}…"
