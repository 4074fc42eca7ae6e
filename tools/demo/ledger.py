"""Whether the volume app's database is of one moment: the invariants that every committed state has, and no other."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tools.demo.volume_app import BUSY_SECONDS, DATABASE, START_BALANCE, TOTAL


@dataclass(frozen=True)
class Ledger:
    """What was found.

    Attributes:
        transfers: how many were recorded.
        faults: one sentence each; empty for a database of one moment.
    """

    transfers: int
    faults: tuple[str, ...]


def read_ledger(directory: Path) -> Ledger:
    """Check the app's database in its folder; the app may be writing.

    Raises:
        sqlite3.Error: it is missing or is no database.
    """
    uri = f"file:{directory / DATABASE}?mode=rw"
    with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)) as database:
        database.execute("BEGIN")
        faults = [f"integrity check: {row[0]}" for row in database.execute("PRAGMA integrity_check") if row[0] != "ok"]
        ((transfers, last),) = database.execute("SELECT count(*), coalesce(max(id), 0) FROM transfers")
        if transfers != last:
            faults.append(f"the last of {transfers} transfers has number {last}")
        total = sum(database.execute(f"SELECT sum(balance) FROM {table}").fetchone()[0] for table in _TABLES)  # noqa: S608
        if total != TOTAL:
            faults.append(f"all balances are {total} instead of {TOTAL}")
        for table, (column, sign) in _TABLES.items():
            wrong = database.execute(
                f"SELECT count(*) FROM {table} LEFT JOIN (SELECT {column} AS id, sum(amount) AS moved FROM transfers "  # noqa: S608
                f"GROUP BY 1) USING (id) WHERE balance <> ? + ? * coalesce(moved, 0)",
                (START_BALANCE, sign),
            ).fetchone()[0]
            if wrong:
                faults.append(f"{wrong} {table} are not what their transfers make them")
    return Ledger(transfers, tuple(faults))


_TABLES = {"wallets": ("wallet", -1), "reserves": ("reserve", 1)}
