"""A configuration as TOML; the standard library only reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

Value = str | int | float | bool | Path | Sequence[str] | None
"""None: the key is left out."""
Table = Mapping[str, "Value | Mapping[str, Value] | Sequence[Mapping[str, Value]]"]


def to_toml(table: Table) -> str:
    """A table with plain values, tables of such, and lists of such, in this order, as TOML wants it."""
    plain = {key: value for key, value in table.items() if not _holds_tables(value)}
    parts = [_lines(plain)]
    for key, value in table.items():
        if isinstance(value, Mapping):
            parts.append(f"[{key}]\n{_lines(value)}")
        elif _holds_tables(value) and isinstance(value, Sequence):
            parts += [f"[[{key}]]\n{_lines(row)}" for row in value if isinstance(row, Mapping)]
    return "\n".join(parts)


def _holds_tables(value: object) -> bool:
    return isinstance(value, Mapping) or (
        isinstance(value, Sequence) and not isinstance(value, str) and any(isinstance(row, Mapping) for row in value)
    )


def _lines(table: Mapping[str, object]) -> str:
    # JSON's strings, numbers, booleans and lists of strings are TOML's too.
    return "".join(f"{key} = {json.dumps(value, default=str)}\n" for key, value in table.items() if value is not None)
