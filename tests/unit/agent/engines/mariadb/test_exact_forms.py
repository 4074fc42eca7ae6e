"""Literals that a column keeps, and those of which a server would cut something off."""

from __future__ import annotations

import pytest

from agent.engines.mariadb.columns import table_made_by
from agent.engines.mariadb.exact_forms import first_changed


@pytest.mark.parametrize(
    ("column", "kept", "cut"),
    [
        ("int(11) unsigned", ["1", "-1.000", "10e2", "'7'", " 0.00", "NULL", "0xFF", "'x'"], ["1.5", "'1.5'", "15e-1"]),
        ("`INT`", ["1.5"], []),
        ("decimal(65,30)", ["1." + "3" * 30, "'-.5'", "1e-30"], ["1." + "3" * 31, "1e-31", "9" * 40 + "." + "3" * 31]),
        ("numeric", ["1", "1.0"], ["1.1"]),
        ("double", ["1.23456789e-300"], []),
        ("float(9)", ["1.23456"], []),
        ("double precision(5,1)", ["1.2"], ["1.25"]),
        ("date", ["'2026-02-31'", "'2026-02-03 00:00:00.0'", "20260203", "'2026.02.03'"], ["'2026-02-03T10:00'"]),
        ("datetime", ["'2026-02-03 10:00'", "'2026.02.03'"], ["'2026-02-03 10:00:00.5'", '"2026-02-03 10:00:00.5"']),
        ("timestamp(6)", ["'2026-02-03 10:00:00.1234560'"], ["'2026-02-03 10:00:00.1234567'"]),
        ("time(3)", ["'-838:59:59.999'", "NULL"], ["'10:00:00.0001'", "101112.0001"]),
        ("bit(8)", ["b'101'", "'1.5'", "_binary '.\\0'"], ["1.5"]),
        ("varchar(2)", ["'a '", "'äö'", "'\\' '", "''", "'abc'", "12.5"], ["'ab '", "_utf8mb4 'äö '"]),
        ("text", ["'1.5 '"], []),
        ("int AS (`id` + 1) STORED", ["1.5"], []),
    ],
)
def test_what_a_column_keeps(column: str, kept: list[str], cut: list[str]) -> None:
    made = table_made_by(f"CREATE TABLE `t` (`id` int, `v` {column})".encode())
    assert made is not None

    def is_cut(*literals: str) -> bool:
        rows = ",\n".join(f"(1,{literal})" for literal in literals)
        return first_changed(rows.encode(), 0, made.columns) is not None

    assert not is_cut(*kept * 60)
    assert [literal for literal in kept if is_cut(literal)] == []
    assert [literal for literal in cut if not is_cut(literal)] == []
    assert all(is_cut(*kept * 60, literal, "NULL") for literal in cut)
