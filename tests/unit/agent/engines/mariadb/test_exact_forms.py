"""Literals that a column keeps, and those of which a server would cut something off."""

from __future__ import annotations

import pytest

from agent.engines.mariadb.dumps.columns import table_made_by
from agent.engines.mariadb.dumps.exact_forms import first_changed


@pytest.mark.parametrize(
    ("column", "kept", "cut"),
    [
        (
            "int(11) unsigned",
            ["1", "-1.000", "10e2", "'7'", " 0.00", "NULL", "0xFF", "'x'"],
            ["1.5", "'1.5'", "15e-1", r"'1\.7'", "x'312e37'"],
        ),
        ("`INT`", ["1.5"], []),
        ("decimal(65,30)", ["1." + "3" * 30, "'-.5'", "1e-30"], ["1." + "3" * 31, "1e-31", "9" * 40 + "." + "3" * 31]),
        ("numeric", ["1", "1.0"], ["1.1"]),
        ("double", ["1.23456789e-300"], []),
        ("float(9)", ["1.23456"], []),
        ("double precision(5,1)", ["1.2"], ["1.25"]),
        (
            "date",
            ["'2026-02-31'", "'2026-02-03 00:00:00.0'", "20260203", "'2026.02.03'"],
            ["'2026-02-03T10:00'", "x'323032362d30312d3031203130'"],
        ),
        (
            "datetime",
            ["'2026-02-03 10:00'", "'2026/2/3'", "20260203101112", '"2026-02-03 10:00:00.0"', "0x32303236303230332e30"],
            [
                *("'2026-02-03 10:00:00.5'", '"2026-02-03 10:00:00.5"', "'2026-01-01 10.11.12.9'", "20260203101112.9"),
                *("'20260101T101112.9'", r"'2026-01-01 10:11:12\.9'", f"0x{b'2026-01-01 10:11:12.9'.hex()}"),
            ],
        ),
        ("timestamp(6)", ["'2026-02-03 10:00:00.1234560'"], ["'2026-02-03 10:00:00.1234567'"]),
        ("time(3)", ["'-838:59:59.999'", "NULL", '"10:00"'], ["'10:00:00.0001'", "101112.0001"]),
        ("time", ["'10:00:00'", "TRUE", "101112"], ["'2026-01-01 10:00:00'", "'20260101101112'", "20260203101112"]),
        ("time", ["'-1:02'"], ["'20260101T101112'", f"0x{b'10:11:12.9'.hex()}", "'10:11:12 x'"]),
        ("bit(8)", ["b'101'", "'1.5'", "_binary '.\\0'"], ["1.5"]),
        ("varchar(2)", ["'a '", "'äö'", "'\\' '", "''", "'abc'", "12.5"], ["'ab '", "_utf8mb4 'äö '", "0x616220"]),
        ("national varchar(003)", ["'ab '", "x'616263'"], ["'abc '"]),
        ("character varying(3)", ["'ab '"], ["'abc '", r"'abc\ '"]),
        ("varchar(4000000000)", ["'ab '"], []),
        ("text", ["'1.5 '"], ["'" + "x" * 65535 + "  '"]),
        ("tinytext NOT NULL", ["'1.5 '", "'" + "é" * 254 + " '"], ["'" + "x" * 255 + "   '"]),
        ("text(10)", ["'" + "x" * 65535 + " '"], []),
        ("enum('a','b')", ["'a'", "2", "'x'", "''"], ["'2'", "' 1'", '"2"', "0x32", "_utf8 '1'"]),
        ("enum('a','2')", ["'2'", "'2 '", "'2x'"], ["'1'"]),
        ("set('a','3','4')", ["'a,3'", "'3'", "'4,3'", "3"], ["'5'"]),
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
