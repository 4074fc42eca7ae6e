"""The result as a table for people and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.rows import Row


def write_json(path: Path, rows: Sequence[Row]) -> None:
    """A list of {name, ours, theirs, unit, ratio, target, met}."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps([row.to_json() for row in rows], indent=2) + "\n")


def print_table(console: Console, rows: Sequence[Row]) -> None:
    """One line a row."""
    table = Table(title="Medians", title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.add_column("what", no_wrap=True)
    for name in ("ours", "theirs", "unit", "ratio", "target", ""):
        table.add_column(name, justify="right")
    for row in rows:
        theirs = "" if row.theirs is None else f"{row.theirs:.2f}"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        target = "" if row.target is None else str(row.target)
        verdict = {None: "", True: "[green]met[/]", False: "[red]missed[/]"}[row.is_met]
        table.add_row(row.name, f"{row.ours:.2f}", theirs, row.unit, ratio, target, verdict)
    console.print(table)
