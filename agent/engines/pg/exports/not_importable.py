"""What a dump makes and no import takes: things that only a superuser may make, of no extension.

An upload is loaded by an ordinary role, whoever the agent's admin is, and so is what `mathison verify` replays. What
such a role may make is in the manual's pages of the CREATE commands (PostgreSQL 18). Event triggers, subscriptions and
publications are not among these: an import leaves them out and goes on.
"""

from __future__ import annotations

from agent.engines.pg.server.catalog import USER_SCHEMA
from agent.engines.pg.server.connection import Connection
from agent.engines.pg.server.privileges import listed

_OWN_TYPE = f"""EXISTS (SELECT FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
    WHERE t.oid IN (k.castsource, k.casttarget) AND {USER_SCHEMA}
      AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_type'::regclass AND e.objid = t.oid
                         AND e.deptype = 'e'))"""  # noqa: S608  # of catalog.py, here and below
_FUNCTIONS = """
    SELECT 'pg_proc'::regclass, p.oid, p.pronamespace FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
      LEFT JOIN pg_aggregate g ON g.aggfnoid = p.oid
     WHERE CASE p.prokind WHEN 'a' THEN g.aggtranstype = 'internal'::regtype OR g.aggmtranstype = 'internal'::regtype
                ELSE NOT l.lanpltrusted OR p.proleakproof OR p.prosupport <> 0
                     OR p.proconfig IS NOT NULL AND EXISTS (
                         SELECT FROM unnest(p.proconfig) AS one JOIN pg_settings s ON s.name = split_part(one, '=', 1)
                          WHERE s.context IN ('superuser', 'superuser-backend')) END"""
"""Of languages that are not trusted, as C; with promises that the server trusts; with a superuser's settings."""
_THINGS = f"""
    SELECT 'pg_opclass'::regclass AS class, oid, opcnamespace AS schema FROM pg_opclass
    UNION ALL SELECT 'pg_opfamily'::regclass, oid, opfnamespace FROM pg_opfamily
    UNION ALL SELECT 'pg_ts_parser'::regclass, oid, prsnamespace FROM pg_ts_parser
    UNION ALL SELECT 'pg_ts_template'::regclass, oid, tmplnamespace FROM pg_ts_template
    UNION ALL SELECT 'pg_type'::regclass, t.oid, t.typnamespace FROM pg_type t
     WHERE (t.typtype = 'b' OR NOT t.typisdefined) AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid)
    UNION ALL {_FUNCTIONS}
    UNION ALL SELECT 'pg_cast'::regclass, k.oid, 0 FROM pg_cast k WHERE NOT {_OWN_TYPE}
    UNION ALL SELECT 'pg_language'::regclass, oid, 0 FROM pg_language
    UNION ALL SELECT 'pg_am'::regclass, oid, 0 FROM pg_am
    UNION ALL SELECT 'pg_foreign_data_wrapper'::regclass, oid, 0 FROM pg_foreign_data_wrapper
    UNION ALL SELECT 'pg_transform'::regclass, oid, 0 FROM pg_transform
"""  # noqa: S608
_NOT_IMPORTABLE = f"""
    SELECT pg_describe_object(class, oid, 0) FROM ({_THINGS}) AS found
     WHERE oid >= 16384
       AND (schema = 0 OR schema IN (SELECT n.oid FROM pg_namespace n WHERE {USER_SCHEMA}))
       AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = class AND d.objid = found.oid
                          AND d.deptype IN ('e', 'i'))
     ORDER BY 1
"""  # noqa: S608
"""What is a part of something, as the functions that make a range are, goes with that."""


async def warnings_of_not_importable(connection: Connection) -> list[str]:
    """What is to be said with an export of the connected database; nothing where an import takes all of it."""
    cursor = await connection.execute(_NOT_IMPORTABLE)
    names = [name for (name,) in await cursor.fetchall()]
    if not names:
        return []
    return [
        "No import takes an archive that makes what only a superuser may make, nor can it be verified: "
        f"{listed(names)}. Drop these, or make them part of an extension; or leave them out of a dump in custom format "
        "(pg_restore --use-list), and import that."
    ]
