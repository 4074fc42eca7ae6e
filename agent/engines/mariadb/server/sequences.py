"""Columns whose defaults are taken from sequences: how a default is led to the sequence of another schema.

The one fact to know: the server writes the sequence's schema into the default and leaves it there when the table is
renamed into another. It takes no default whose sequence is not there, so one can only be led to a schema after the
sequence has come to it (10.11, 11.8; nor does it take a temporary one). And its catalogs tell each byte of a character
of four bytes as `?`; SHOW CREATE TABLE has the default as it is.
"""

from __future__ import annotations

import contextlib
import re
from collections import defaultdict
from collections.abc import Collection

from agent.engines.mariadb.dumps.sequence_uses import USE, ForeignSequenceError, moved
from agent.engines.mariadb.names import bare, quoted
from agent.engines.mariadb.server.client import literal, query
from agent.engines.mariadb.server.settings import Login
from common.errors import AppBusyError

_UNTOLD = re.compile(r"\?+")
_ANY_BYTES = r"[?\x80-\U0010ffff]+"


async def lead_beforehand(admin: Login, staged: str, *, put_into: str) -> bool:
    """Lead the defaults of staged tables to the schema that they are meant for, as far as it has such sequences by now.

    Returns:
        Whether others have to be led when they are in place.
    """
    if not await _lead_there(admin, staged, put_into):
        return False
    rows = await query(
        admin,
        "SELECT TABLE_NAME FROM information_schema.TABLES"  # noqa: S608  # a literal
        f" WHERE TABLE_TYPE = 'SEQUENCE' AND TABLE_SCHEMA = {literal(put_into)};",
    )
    with contextlib.suppress(AppBusyError):
        await lead(admin, staged, source=staged, target=put_into, only={row[0] for row in rows})
    return await _lead_there(admin, staged, put_into)


async def _lead_there(admin: Login, schema: str, target: str) -> bool:
    """Whether defaults that look in their own schema are to look in `target`."""
    return any(moved(default, schema, target) != default for _, _, default in await _defaults(admin, schema))


async def tables_with_foreign(login: Login, schema: str) -> list[str]:
    """The tables with defaults from sequences of other schemas."""
    found = set()
    for table, _, default in await _defaults(login, schema):
        try:
            moved(default, schema, schema)
        except ForeignSequenceError:
            found.add(table)
    return sorted(found)


async def lead(admin: Login, schema: str, *, source: str, target: str, only: Collection[str] | None = None) -> None:
    """Have the defaults of a schema's columns that look for their sequences in `source` look in `target`. Repeating it
    changes nothing.

    Args:
        only: the sequences that are there; None: all have to be.
    Raises:
        AppBusyError: a table is in use.
        ToolFailedError: a sequence is not there.
    """
    changes = defaultdict(list)
    for table, column, default in await _defaults(admin, schema):
        try:
            led = moved(default, source, target)
        except ForeignSequenceError:
            # Of a table that was there before; none comes with an import.
            continue
        named = {bare(found["sequence"]) for found in USE.finditer(default) if found["sequence"]}
        if led != default and (only is None or named <= set(only)):
            changes[table].append(f"ALTER COLUMN {quoted(column)} SET DEFAULT ({led})")
    if changes:
        sql = "SET NAMES utf8mb4; SET SESSION sql_mode = '', system_versioning_alter_history = KEEP;"
        for table, parts in changes.items():
            altered = f"ALTER TABLE {quoted(schema)}.{quoted(table)} {', '.join(parts)}"
            # As digits, so that it is one statement whatever a default says.
            sql += f" EXECUTE IMMEDIATE 0x{altered.encode(errors='surrogateescape').hex()};"
        await query(admin, sql, is_apart=True)


async def _defaults(login: Login, schema: str) -> list[list[str]]:
    """Table, column and default of each column that takes it from a sequence, and perhaps of others."""
    rows = await query(
        login,
        "SET NAMES utf8mb4; SET SESSION sql_mode = '';"  # noqa: S608  # a literal
        " SELECT TABLE_NAME, COLUMN_NAME, COLUMN_DEFAULT FROM information_schema.COLUMNS"
        f" WHERE TABLE_SCHEMA = {literal(schema)} AND COLUMN_DEFAULT LIKE '%val(`%' ORDER BY TABLE_NAME, COLUMN_NAME;",
    )
    return [
        [table, column, await _as_kept(login, schema, table, column, told) if "?" in told else told]
        for table, column, told in rows
    ]


async def _as_kept(login: Login, schema: str, table: str, column: str, told: str) -> str:
    """A default of which a catalog tells some bytes as `?`.

    Raises:
        AppBusyError: the table has another by now.
    """
    sql = f"SET NAMES utf8mb4; SET SESSION sql_mode = ''; SHOW CREATE TABLE {quoted(schema)}.{quoted(table)};"
    [[_, made]] = await query(login, sql)
    default = _ANY_BYTES.join(map(re.escape, _UNTOLD.split(told)))
    found = re.search(rf"^  {re.escape(quoted(column))} [^\n]*? DEFAULT ({default})", made, re.MULTILINE)
    if found is None:
        raise AppBusyError(f"The table {table} is altered while its defaults are read.", next_step="Try again.")
    return found[1]
