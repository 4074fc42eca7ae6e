"""Materialized views that an import filled with other rows than they had: an archive holds their query, not their rows.

The query runs anew, as the role that owns all that was loaded. So a view that was out of date has other rows then, and
so has one whose owner may not see all rows of its tables: nobody should find out later that it shows more than it did.
"""

from __future__ import annotations

from collections.abc import Mapping

from agent.engines.pg.imports.preview import Held
from agent.engines.pg.server.catalog import USER_SCHEMA, no_member
from agent.engines.pg.server.connection import Connection
from agent.engines.pg.server.privileges import listed

_FILLED = f"""
    WITH RECURSIVE reads (relation, exempt) AS (
        SELECT oid, CASE WHEN relforcerowsecurity THEN 0::oid ELSE relowner END FROM pg_class WHERE relrowsecurity
        UNION
        SELECT c.oid, r.exempt
          FROM reads r
          JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = r.relation
                          AND d.classid = 'pg_rewrite'::regclass
          JOIN pg_rewrite w ON w.oid = d.objid JOIN pg_class c ON c.oid = w.ev_class AND c.relkind IN ('v', 'm')
    )
    SELECT format('%I.%I', n.nspname, c.relname),
           NOT o.rolsuper AND NOT o.rolbypassrls
           AND EXISTS (SELECT FROM reads r WHERE r.relation = c.oid
                          AND (r.exempt = 0 OR NOT pg_has_role(c.relowner, r.exempt, 'USAGE')))
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_roles o ON o.oid = c.relowner
     WHERE {USER_SCHEMA} AND c.relkind = 'm' AND c.relispopulated AND {no_member("pg_class", "c.oid")}
     ORDER BY 1
"""  # noqa: S608  # conditions of catalog.py


async def filled_views(connection: Connection) -> dict[str, bool]:
    """The filled materialized views of the connected database by name, as SQL needs it.

    Returns:
        Whether row security keeps a view's owner from rows that it reads, so that a REFRESH would leave them out. What
        a function in its query reads is not seen.
    """
    cursor = await connection.execute(_FILLED)
    return dict(await cursor.fetchall())


def warnings_about(views: Mapping[str, bool], *, exported: Held | None, imported: Held) -> list[str]:
    """What a person should know of their rows.

    Args:
        views: from `filled_views`, after the import.
        exported: what the archive says of its tables and views, if it does.
        imported: what was loaded.
    """
    exported = exported or {}
    other, same = [], set()
    for name in views:
        rows, content = imported.get(name, (0, None))
        if content is not None and name in exported:
            if content == exported[name][1]:
                same.add(name)
            elif rows != exported[name][0]:
                # The same number may well be the same rows in another encoding.
                other.append(name)
    warnings = []
    if other:
        warnings.append(
            "These materialized views have more or fewer rows than when they were exported, since an import fills them "
            f"anew, from all rows of their tables: {listed(other)}."
        )
    if hidden := [name for name, is_hidden in views.items() if is_hidden and name not in same]:
        warnings.append(
            "These materialized views were filled from all rows of their tables, also those that row security hides "
            f"from the views' owner: {listed(hidden)}. REFRESH MATERIALIZED VIEW leaves those out."
        )
    return warnings
