"""What publications publish, when an import within the app's database takes their tables aside or brings them back.

A publication is of tables and schemas themselves, not of their names: it goes along with what is moved. So those that
the role may alter let go of the previous tables at the end of an import and get the new ones of the same names; an undo
does the same the other way round. The others stay with the previous tables, and a person is told.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from psycopg import sql

from agent.engines.pg.server.catalog import USER_SCHEMA, no_member
from agent.engines.pg.server.connection import Connection
from agent.engines.pg.server.privileges import listed

_PARTS_SINCE = 150_000
"""The version that brought columns, filters and whole schemas."""
_COLUMNS = """(SELECT ' (' || string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) || ')' FROM pg_attribute a
              WHERE a.attrelid = r.prrelid AND a.attnum = ANY(r.prattrs))"""
_ROWS = "' WHERE (' || pg_get_expr(r.prqual, r.prrelid) || ')'"
_SCHEMAS = f"""
    SELECT quote_ident(p.pubname), n.nspname, 'all tables in ' || quote_ident(n.nspname),
           format('ALTER PUBLICATION %I ADD TABLES IN SCHEMA %I', p.pubname, n.nspname), false, true
      FROM pg_publication_namespace r JOIN pg_publication p ON p.oid = r.pnpubid
      JOIN pg_namespace n ON n.oid = r.pnnspid
     WHERE {USER_SCHEMA} AND {no_member("pg_namespace", "n.oid")}
"""  # noqa: S608
"""Only a superuser may own or alter one."""
_EXCHANGE = """DO $do$ DECLARE one record; adding text; BEGIN
FOR one IN
    SELECT p.pubname, r.prrelid::pg_catalog.regclass AS name
      FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid
      JOIN pg_catalog.pg_class c ON c.oid = r.prrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE pg_catalog.starts_with(n.nspname, {prefix}) AND pg_catalog.pg_has_role(p.pubowner, 'USAGE')
LOOP
    EXECUTE pg_catalog.format('ALTER PUBLICATION %I DROP TABLE ONLY %s', one.pubname, one.name);
END LOOP;
FOREACH adding IN ARRAY {statements}::text[] LOOP
    BEGIN EXECUTE adding;
    EXCEPTION WHEN OTHERS THEN
        IF SQLSTATE !~ '^(0A|22|3F|42)' THEN RAISE; END IF;
    END;
END LOOP; END $do$"""
"""What does not fit is left out: no such table or column, another type, a publication that is gone."""


@dataclass(frozen=True)
class Published:
    """A table, or all of a schema, in a publication.

    Attributes:
        publication, what: names as SQL has them; `what` is for a person too.
        schema: its name, or the table's.
        adding: the statement that adds it again, with its columns and the filter of its rows.
        is_own: the connected role may alter the publication.
    """

    publication: str
    schema: str
    what: str
    adding: str
    is_own: bool
    is_schema: bool

    @property
    def name(self) -> str:
        """For a person."""
        return f"{self.what} (in {self.publication})"

    @property
    def place(self) -> tuple[str, str]:
        """What stays the same when it is added again."""
        return self.publication, self.what


def _tables(parts: str) -> str:
    return f"""
    SELECT quote_ident(p.pubname), n.nspname, format('%I.%I', n.nspname, c.relname),
           format('ALTER PUBLICATION %I ADD TABLE ONLY %I.%I', p.pubname, n.nspname, c.relname) || {parts},
           pg_has_role(p.pubowner, 'USAGE'), false
      FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
      JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE {USER_SCHEMA} AND {no_member("pg_class", "c.oid")}
"""  # noqa: S608  # of this module and catalog.py


async def published(connection: Connection) -> list[Published]:
    """What publications have of the app's tables and schemas; those of all tables have none by itself."""
    has_parts = connection.info.server_version >= _PARTS_SINCE
    parts = f"coalesce({_COLUMNS}, '') || coalesce({_ROWS}, '')" if has_parts else "''"
    query = _tables(parts) + (f" UNION ALL {_SCHEMAS}" if has_parts else "")
    cursor = await connection.execute(f"{query} ORDER BY 1, 3")
    return [Published(*row) for row in await cursor.fetchall()]


def exchange(prefix: str, statements: Sequence[str]) -> sql.Composed:
    """The statement with which publications that the role may alter let go of tables and get others.

    Args:
        prefix: how the names of the schemas begin whose tables are let go.
        statements: of `Published.adding`.
    """
    return sql.SQL(_EXCHANGE).format(prefix=prefix, statements=sql.Literal(list(statements)))


def of_role(found: Sequence[Published]) -> tuple[str, ...]:
    """The statements that add again what the role may."""
    return tuple(one.adding for one in found if one.is_own)


def warnings_before(
    found: Sequence[Published], *, renamed: Collection[str], gone: Collection[str], role: str
) -> list[str]:
    """What a person should know of publications before an import.

    Args:
        renamed: schemas that are moved as a whole.
        gone: tables of now that the file is known not to have.
    """
    own = [one for one in found if one.is_own]
    others = _staying(found, renamed)
    warnings = []
    if own:
        warnings.append(
            "Publications have the tables of these names again after the import, those that the file has with the "
            f"columns that are named there: {listed([one.name for one in own])}. Subscribers have to be set up anew."
        )
    if lost := [one.name for one in own if one.what in gone]:
        warnings.append(f"Published now, and not in the file: {listed(lost)}.")
    if others:
        warnings.append(
            f"Publications that role {role} may not alter go on with the previous data, not with the file's: "
            f"{listed([one.name for one in others])}. After the import a superuser has to run: {_remedy(others)}"
        )
    return warnings


def told_after(before: Sequence[Published], now: Sequence[Published], *, renamed: Collection[str]) -> str:
    """What is published no more after an import, for a person; empty: nothing."""
    there = {one.place for one in now}
    lost = [one for one in before if one.is_own and one.place not in there]
    others = [one for one in _staying(before, renamed) if one.place not in there]
    sentences = []
    if lost:
        sentences.append(
            f"Published no more, since the file does not have it as it was: {listed([one.name for one in lost])}."
        )
    if others:
        sentences.append(
            f"Publications go on with the previous data: {listed([one.name for one in others])}. A superuser changes "
            f"that: {_remedy(others)}"
        )
    return " ".join(sentences)


def _staying(found: Sequence[Published], renamed: Collection[str]) -> list[Published]:
    """Of what the role may not alter, what goes along with the previous data: tables, and schemas that are renamed."""
    return [one for one in found if not one.is_own and (not one.is_schema or one.schema in renamed)]


def _remedy(found: Sequence[Published]) -> str:
    return listed([f"{one.adding};" for one in found])
