"""FLOAT columns, of whose values a dump keeps six digits.

The one fact to know: the server writes a FLOAT as text with six digits, however it is asked, and a value may have nine.
No setting of the server or of mariadb-dump makes it more. So what is lost is looked for and told.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from agent.engines.mariadb.server.catalog import Schema
from agent.engines.mariadb.server.client import WITHIN_SECONDS, literal, query, quoted
from agent.engines.mariadb.server.settings import Login
from common.errors import ServiceError
from common.wording import counted, some_of

ROUNDED = "rounded_floats"
"""Name of the fact in an archive's header."""
_TOGETHER_SECONDS = 3
_SECONDS = 5
"""For all tables, so much of it first in one statement. A million values take 1.3 s on a busy machine of two cores."""
_NAMED = 5
_NAME_CHARACTERS = 120
_FACT_CHARACTERS = 1000
"""Of somebody's file; ours are shorter."""


@dataclass(frozen=True)
class FloatColumn:
    """One whose values a dump rounds, or may.

    Attributes:
        rows: with more than six digits; None: there was no time to count.
        has_dependents: the table has generated columns, which the server works out from the whole value.
    """

    table: str
    column: str
    rows: int | None = None
    has_dependents: bool = False

    def __str__(self) -> str:
        """For a person."""
        name = f"{self.table}.{self.column}"[:_NAME_CHARACTERS]
        return f"{name} (not counted)" if self.rows is None else f"{name} ({counted(self.rows, 'rows', 'row')})"


async def find_rounded(login: Login, database: str, schema: Schema, *, has_history: bool = False) -> list[FloatColumn]:
    """The columns of which a dump made now rounds values, or may; takes up to 5 seconds."""
    columns = await _float_columns(login, database)
    asked: dict[str, str] = {}
    for table in sorted({found.table for found in columns}, key=lambda name: schema.tables.get(name, 0)):
        everything = " FOR SYSTEM_TIME ALL" if has_history and table in schema.versioned else ""
        sums = ", ".join(_lost(found.column) for found in columns if found.table == table)
        asked[table] = f"SELECT {sums} FROM {quoted(database)}.{quoted(table)}{everything};"  # noqa: S608  # quoted
    counts = await _answers(login, asked)
    found = []
    for table in sorted(asked):
        group = [column for column in columns if column.table == table]
        for column, rows in zip(group, counts.get(table, [None] * len(group)), strict=True):
            if rows != "0":
                found.append(replace(column, rows=None if rows is None else int(rows)))
    return found


def details_of(columns: Sequence[FloatColumn]) -> dict[str, str]:
    """For an archive's header."""
    return {ROUNDED: listed(columns)} if columns else {}


def listed(columns: Sequence[FloatColumn]) -> str:
    """Names and numbers for a person."""
    return some_of([str(column) for column in columns], _NAMED)


def warning_of(columns: Sequence[FloatColumn]) -> str:
    """What to know of an export; empty: there is nothing."""
    if not columns:
        return ""
    verb = "rounds" if any(column.rows for column in columns) else "may round"
    return (
        f"mariadb-dump {verb} FLOAT values with more than six digits: {listed(columns)}. The export holds them "
        "rounded; change these columns to DOUBLE to keep what they hold."
    )


def told_of(details: Mapping[str, str]) -> str:
    """What to know of an archive whose header has these; empty: there is nothing."""
    rounded = details.get(ROUNDED, "")[:_FACT_CHARACTERS]
    return f"FLOAT values with more than six digits, which the export holds rounded: {rounded}." if rounded else ""


def withheld_for(columns: Sequence[FloatColumn]) -> str:
    """Why an export can have no fingerprint; empty when it can."""
    tables = sorted({column.table for column in columns if column.has_dependents})
    if not tables:
        return ""
    return (
        f"The export has no fingerprint: generated columns in {some_of(tables, _NAMED)} are worked out from FLOAT "
        "values that it holds rounded, and come out otherwise wherever it is loaded."
    )


def _lost(column: str) -> str:
    """How many values are others than those that their text gives."""
    name = quoted(column)
    return f"COALESCE(SUM({name} * 1e0 <> CAST(CAST({name} AS CHAR) AS FLOAT) * 1e0), 0)"


async def _float_columns(login: Login, database: str) -> list[FloatColumn]:
    rows = await query(
        login,
        "SELECT c.TABLE_NAME, c.COLUMN_NAME, (SELECT COUNT(*) FROM information_schema.COLUMNS g"  # noqa: S608  # a literal
        " WHERE g.TABLE_SCHEMA = c.TABLE_SCHEMA AND g.TABLE_NAME = c.TABLE_NAME"
        " AND COALESCE(g.GENERATION_EXPRESSION, '') NOT IN ('', 'ROW START', 'ROW END'))"
        " FROM information_schema.COLUMNS c JOIN information_schema.TABLES t USING (TABLE_SCHEMA, TABLE_NAME)"
        f" WHERE c.TABLE_SCHEMA = {literal(database)} AND c.DATA_TYPE = 'float'"
        " AND COALESCE(c.GENERATION_EXPRESSION, '') = '' AND t.TABLE_TYPE NOT LIKE '%VIEW'"
        " ORDER BY c.TABLE_NAME, c.ORDINAL_POSITION;",
    )
    return [FloatColumn(table, column, has_dependents=int(generated) > 0) for table, column, generated in rows]


async def _answers(login: Login, asked: Mapping[str, str]) -> Mapping[str, Sequence[str | None]]:
    """The one row of each of these queries that ended in time."""
    if not asked:
        return {}
    within = WITHIN_SECONDS.format(seconds=_TOGETHER_SECONDS)
    answers: dict[str, Sequence[str | None]] = {}
    # What is given up still ends in the server, where each statement has its own bound.
    with contextlib.suppress(TimeoutError, ServiceError):
        async with asyncio.timeout(_TOGETHER_SECONDS):
            return dict(zip(asked, await query(login, f"{within} {' '.join(asked.values())}"), strict=True))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_SECONDS - _TOGETHER_SECONDS):
            for table, sql in asked.items():
                with contextlib.suppress(ServiceError):
                    [answers[table]] = await query(login, f"{within} {sql}")
    return answers
