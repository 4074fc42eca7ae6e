"""Values that a dump does not hold as they are: of FLOAT columns it keeps six digits, and of texts what UTF-8 has.

The facts to know: the server writes a FLOAT as text with six digits, however it is asked, and a value may have nine. It
takes bytes into a text for which its own tables have no character of Unicode (in sjis, gb2312, ascii and others), and
writes each as `?`, in rows and in what makes a table. No setting of the server or of mariadb-dump makes it more. So
what is lost is looked for and told.
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

_WHOLE = (
    *("utf8", "utf8mb3", "utf8mb4", "utf16", "utf16le", "utf32", "ucs2", "latin1", "latin2", "latin5", "latin7"),
    *("cp850", "cp852", "cp866", "keybcs2", "koi8r", "koi8u", "macce", "macroman"),
)
"""Character sets of which every text comes back from UTF-8 as it was (10.11, MySQL 9.7)."""
_TOGETHER_SECONDS = 3
_SECONDS = 5
"""For all tables, so much of it first in one statement. A million FLOATs take 1.3 s on a busy machine of two cores."""
_NAMED = 5
_NAME_CHARACTERS = 120
_FACT_CHARACTERS = 1000
"""Of somebody's file; ours are shorter."""


@dataclass(frozen=True)
class Loss:
    """A way in which a dump changes values.

    Attributes:
        fact: its name in an archive's header.
        of_counted, of_uncounted: what a dump does, before names of columns.
        advice: what comes after them.
        told: what is to be known of an archive, before names of columns.
    """

    fact: str
    of_counted: str
    of_uncounted: str
    advice: str
    told: str


ROUNDED = Loss(
    fact="rounded_floats",
    of_counted="mariadb-dump rounds FLOAT values with more than six digits",
    of_uncounted="mariadb-dump may round FLOAT values with more than six digits",
    advice="The export holds them rounded; change these columns to DOUBLE to keep what they hold.",
    told="FLOAT values with more than six digits, which the export holds rounded",
)
UNMAPPED = Loss(
    fact="changed_texts",
    of_counted="mariadb-dump changes texts with characters for which the server has none in UTF-8",
    of_uncounted="mariadb-dump may change texts with characters for which the server has none in UTF-8",
    advice="The export holds `?` or another character for each; make these columns binary (VARBINARY, BLOB) or correct "
    "their values to keep what they hold.",
    told="Texts with characters for which the server has none in UTF-8, which the export holds as `?` or others",
)
_LOSSES = (ROUNDED, UNMAPPED)


@dataclass(frozen=True)
class LossyColumn:
    """One whose values a dump changes, or may.

    Attributes:
        charset: of a text; empty: it is a FLOAT.
        rows: with such values; None: there was no time to count.
        is_in_definition: its default or list, as the server tells it, has a `?`, which may stand for such a character.
        has_dependents: the table has generated columns, which the server works out from the whole value.
    """

    table: str
    column: str
    charset: str = ""
    rows: int | None = None
    is_in_definition: bool = False
    has_dependents: bool = False

    @property
    def loss(self) -> Loss:
        return UNMAPPED if self.charset else ROUNDED

    @property
    def lost(self) -> str:
        """How many values are others than those that come back from what the dump says, as SQL."""
        name = quoted(self.column)
        if self.charset:
            back = f"CONVERT(CONVERT({name} USING utf8mb4) USING {self.charset})"
            return f"COALESCE(SUM(NOT CAST({back} AS BINARY) <=> CAST({name} AS BINARY)), 0)"
        return f"COALESCE(SUM({name} * 1e0 <> CAST(CAST({name} AS CHAR) AS FLOAT) * 1e0), 0)"

    def __str__(self) -> str:
        """For a person."""
        name = f"{self.table}.{self.column}"[:_NAME_CHARACTERS]
        rows = "not counted" if self.rows is None else counted(self.rows, "rows", "row")
        return f"{name} ({rows}, ? in its definition)" if self.is_in_definition else f"{name} ({rows})"


async def find_lost(login: Login, database: str, schema: Schema, *, has_history: bool = False) -> list[LossyColumn]:
    """The columns of which a dump made now changes values, or may; takes up to 5 seconds."""
    columns = await _columns(login, database, is_mariadb=schema.is_mariadb)
    asked: dict[str, str] = {}
    for table in sorted({found.table for found in columns}, key=lambda name: schema.tables.get(name, 0)):
        everything = " FOR SYSTEM_TIME ALL" if has_history and table in schema.versioned else ""
        sums = ", ".join(found.lost for found in columns if found.table == table)
        asked[table] = f"SELECT {sums} FROM {quoted(database)}.{quoted(table)}{everything};"  # noqa: S608  # quoted
    counts = await _answers(login, asked)
    found = []
    for table in sorted(asked):
        group = [column for column in columns if column.table == table]
        for column, rows in zip(group, counts.get(table, [None] * len(group)), strict=True):
            if rows != "0" or column.is_in_definition:
                found.append(replace(column, rows=None if rows is None else int(rows)))
    return found


def details_of(columns: Sequence[LossyColumn]) -> dict[str, str]:
    """For an archive's header."""
    return {loss.fact: _listed(found) for loss, found in _by_loss(columns)}


def warnings_of(columns: Sequence[LossyColumn]) -> list[str]:
    """What to know of an export."""
    warnings = []
    for loss, found in _by_loss(columns):
        said = loss.of_counted if any(column.rows for column in found) else loss.of_uncounted
        warnings.append(f"{said}: {_listed(found)}. {loss.advice}")
    return warnings


def told_of(details: Mapping[str, str]) -> list[str]:
    """What to know of an archive whose header has these."""
    facts = [(loss, details.get(loss.fact, "")[:_FACT_CHARACTERS]) for loss in _LOSSES]
    return [f"{loss.told}: {fact}." for loss, fact in facts if fact]


def withheld_for(columns: Sequence[LossyColumn]) -> str:
    """Why an export can have no fingerprint; empty when it can."""
    tables = sorted({column.table for column in columns if column.has_dependents and column.rows != 0})
    if not tables:
        return ""
    return (
        f"The export has no fingerprint: generated columns in {some_of(tables, _NAMED)} are worked out from values "
        "that it holds changed, and come out otherwise wherever it is loaded."
    )


def _by_loss(columns: Sequence[LossyColumn]) -> list[tuple[Loss, list[LossyColumn]]]:
    grouped = [(loss, [column for column in columns if column.loss is loss]) for loss in _LOSSES]
    return [(loss, found) for loss, found in grouped if found]


def _listed(columns: Sequence[LossyColumn]) -> str:
    return some_of([str(column) for column in columns], _NAMED)


async def _columns(login: Login, database: str, *, is_mariadb: bool) -> list[LossyColumn]:
    # MySQL's dumps have such a default as bytes.
    told = "CONCAT(c.COLUMN_TYPE, COALESCE(c.COLUMN_DEFAULT, ''))" if is_mariadb else "c.COLUMN_TYPE"
    whole = ", ".join(literal(charset) for charset in _WHOLE)
    rows = await query(
        login,
        "SELECT c.TABLE_NAME, c.COLUMN_NAME, COALESCE(c.CHARACTER_SET_NAME, ''),"  # noqa: S608  # literals
        f" c.DATA_TYPE <> 'float' AND {told} LIKE '%?%',"
        " (SELECT COUNT(*) FROM information_schema.COLUMNS g"
        " WHERE g.TABLE_SCHEMA = c.TABLE_SCHEMA AND g.TABLE_NAME = c.TABLE_NAME"
        " AND COALESCE(g.GENERATION_EXPRESSION, '') NOT IN ('', 'ROW START', 'ROW END'))"
        " FROM information_schema.COLUMNS c JOIN information_schema.TABLES t USING (TABLE_SCHEMA, TABLE_NAME)"
        f" WHERE c.TABLE_SCHEMA = {literal(database)}"
        f" AND (c.DATA_TYPE = 'float' OR c.CHARACTER_SET_NAME NOT IN ({whole}))"
        " AND COALESCE(c.GENERATION_EXPRESSION, '') = '' AND t.TABLE_TYPE NOT LIKE '%VIEW'"
        " ORDER BY c.TABLE_NAME, c.ORDINAL_POSITION;",
    )
    return [
        LossyColumn(table, column, charset, is_in_definition=has_mark == "1", has_dependents=int(generated) > 0)
        for table, column, charset, has_mark, generated in rows
    ]


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
