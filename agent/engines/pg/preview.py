"""What an import would change, told from the databases before and after."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from agent.engines.pg.catalog import USER_SCHEMA, count_objects, no_member
from agent.engines.pg.connection import Connection
from agent.engines.pg.load import Loaded
from common.headers import ArchiveHeader

_MOST_NAMES = 10


@dataclass(frozen=True)
class Content:
    """One database: names of its tables, as SQL needs them, and counts of objects."""

    tables: frozenset[str]
    counts: Mapping[str, int]
    rows: int
    """As the server's statistics say; about right after ANALYZE."""


async def look_at_content(connection: Connection) -> Content:
    """The connected database."""
    cursor = await connection.execute(f"""
        SELECT format('%I.%I', n.nspname, c.relname), CASE c.relkind WHEN 'r' THEN greatest(c.reltuples, 0) ELSE 0 END
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE {USER_SCHEMA} AND c.relkind IN ('r', 'p') AND {no_member("pg_class", "c.oid")}
    """)  # noqa: S608
    tables = await cursor.fetchall()
    return Content(
        frozenset(name for name, _ in tables), await count_objects(connection), int(sum(rows for _, rows in tables))
    )


@dataclass(frozen=True)
class Changes:
    """What an import would change; the attributes are those of recipes.base.Preview."""

    changes: tuple[str, ...]
    counts_now: Mapping[str, int]
    counts_after: Mapping[str, int]
    warnings: tuple[str, ...]
    header: ArchiveHeader


def changes_between(before: Content, after: Content, loaded: Loaded, *, warnings: Iterable[str]) -> Changes:
    """What to tell about an import that is ready."""
    rows = loaded.counts.get("rows", after.rows)
    changes = [
        f"Now {_tables(before)} with about {before.rows:,} rows; after the import {_tables(after)} with {rows:,} rows.",
        *_named("New tables", after.tables - before.tables),
        *_named("Tables that will be gone", before.tables - after.tables),
    ]
    return Changes(
        changes=tuple(changes),
        counts_now=before.counts,
        counts_after={**after.counts, "rows": rows},
        warnings=(*warnings, *loaded.warnings, *_deferred(loaded)),
        header=loaded.header or _header_of(loaded),
    )


def changes_by_file(before: Content, loaded: Loaded, *, warnings: Iterable[str]) -> Changes:
    """What to tell about an import of which only the file was read."""
    tables = loaded.counts.get("tables", 0)
    return Changes(
        changes=(
            f"Now {_tables(before)} with about {before.rows:,} rows; the file has {tables:,} tables and "
            f"{loaded.counts.get('large_objects', 0):,} large objects.",
        ),
        counts_now=before.counts,
        counts_after={"tables": tables},
        warnings=(*warnings, *loaded.warnings, *_deferred(loaded)),
        header=loaded.header or _header_of(loaded),
    )


def _deferred(loaded: Loaded) -> Sequence[str]:
    names = [f"{one.kind} {one.name}" for one in loaded.deferred]
    return _named("Left out, because they cannot be made safely from a file", names)


def _header_of(loaded: Loaded) -> ArchiveHeader:
    """What is known of a file that somebody else made."""
    return ArchiveHeader(
        format=loaded.archive_format,
        engine="postgresql",
        engine_version=loaded.source_version,
        made_by=f"pg_dump {loaded.dumper_version}" if loaded.dumper_version else "",
        counts=loaded.counts,
    )


def _tables(content: Content) -> str:
    number = len(content.tables)
    return f"{number:,} table{'' if number == 1 else 's'}"


def _named(what: str, names: Iterable[str]) -> Sequence[str]:
    listed = sorted(names)
    if not listed:
        return ()
    more = f" and {len(listed) - _MOST_NAMES:,} more" if len(listed) > _MOST_NAMES else ""
    return (f"{what}: {', '.join(listed[:_MOST_NAMES])}{more}.",)
