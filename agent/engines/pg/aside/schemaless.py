"""What is in no schema but made of things that are, as a cast is: it can neither be moved nor left out of a dump.

So an import within the app's database drops the app's casts and keeps the statements that make them again. The others
belong to superusers, and where one would have to follow what is moved, no import is made.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.engines.pg.server.catalog import USER_SCHEMA, no_member
from agent.engines.pg.server.connection import Connection

_OTHERS = ("pg_event_trigger", "pg_transform", "pg_language", "pg_am", "pg_foreign_data_wrapper")
"""Catalogs of what else is made of functions or types; publications of tables may be empty."""


def _moved(catalog: str, prefix: str, number: str) -> str:
    """SQL: an object is the app's."""
    return (
        f"EXISTS (SELECT FROM {catalog} x JOIN pg_namespace n ON n.oid = x.{prefix}namespace"
        f" WHERE x.oid = {number} AND {USER_SCHEMA} AND {no_member(catalog, 'x.oid')})"
    )


_CASTS = f"""
    SELECT format('CAST (%s AS %s)', format_type(k.castsource, NULL), format_type(k.casttarget, NULL)) AS name,
           CASE k.castmethod WHEN 'f' THEN 'WITH FUNCTION ' || k.castfunc::regprocedure
                             WHEN 'i' THEN 'WITH INOUT' ELSE 'WITHOUT FUNCTION' END
           || CASE k.castcontext WHEN 'a' THEN ' AS ASSIGNMENT' WHEN 'i' THEN ' AS IMPLICIT' ELSE '' END AS how,
           quote_literal(obj_description(k.oid, 'pg_cast')) AS comment,
           pg_has_role(s.typowner, 'USAGE') OR pg_has_role(t.typowner, 'USAGE') AS is_own
      FROM pg_cast k JOIN pg_type s ON s.oid = k.castsource JOIN pg_type t ON t.oid = k.casttarget
     WHERE k.oid >= 16384 AND {no_member("pg_cast", "k.oid")}
       AND NOT EXISTS (SELECT FROM pg_depend i WHERE i.classid = 'pg_cast'::regclass AND i.objid = k.oid
                          AND i.deptype = 'i')
       AND ({_moved("pg_type", "typ", "s.oid")} OR {_moved("pg_type", "typ", "t.oid")}
            OR {_moved("pg_proc", "pro", "k.castfunc")})
"""  # noqa: S608  # of this module and catalog.py, here and below


@dataclass(frozen=True)
class Cast:
    """A cast of the app.

    Attributes:
        name: as statements name it.
        making: statements that make it again, with its comment.
    """

    name: str
    making: tuple[str, ...]


async def app_casts(connection: Connection) -> list[Cast]:
    """Those that the connected role may drop and make."""
    query = f"SELECT name, how, comment FROM ({_CASTS}) AS casts WHERE is_own ORDER BY name"  # noqa: S608
    cursor = await connection.execute(query)
    return [
        Cast(name, (f"CREATE {name} {how}", *([f"COMMENT ON {name} IS {comment}"] if comment else [])))
        for name, how, comment in await cursor.fetchall()
    ]


async def not_taken_aside(connection: Connection) -> list[str]:
    """What the connected role can neither move nor drop, and which would go with what is moved."""
    others = ", ".join(f"'{catalog}'::regclass" for catalog in _OTHERS)
    cursor = await connection.execute(f"""
        SELECT lower(left(name, 4)) || substr(name, 5) FROM ({_CASTS}) AS casts WHERE NOT is_own
        UNION
        SELECT pg_describe_object(d.classid, d.objid, 0) FROM pg_depend d
         WHERE d.classid IN ({others})
           AND NOT EXISTS (SELECT FROM pg_depend e
                            WHERE e.classid = d.classid AND e.objid = d.objid AND e.deptype = 'e')
           AND (d.refclassid = 'pg_proc'::regclass AND {_moved("pg_proc", "pro", "d.refobjid")}
                OR d.refclassid = 'pg_type'::regclass AND {_moved("pg_type", "typ", "d.refobjid")})
         ORDER BY 1
    """)  # noqa: S608
    return [name for (name,) in await cursor.fetchall()]
