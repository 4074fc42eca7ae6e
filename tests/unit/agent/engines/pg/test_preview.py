"""What a preview says, told from what is known of both sides."""

from __future__ import annotations

import pytest

from agent.engines.pg.fingerprint import Fingerprint, Table
from agent.engines.pg.load import Loaded
from agent.engines.pg.preview import bridging_of, items_between, tables_of
from agent.item_changes import ItemChanges


def test_rows_come_go_and_stay_with_their_tables_and_are_else_not_compared() -> None:
    now = {"gone": (5, "5 rows, 1"), "same": (7, "7 rows, 2"), "changed": (2, "2 rows, 3"), "large": (900, None)}
    after = {
        "new": (4, "4 rows, 9"),
        "same": (7, "7 rows, 2"),
        "changed": (3, "3 rows, 4"),
        "large": (901, "901 rows, 5"),
    }

    items = items_between(now, after)

    assert items["tables"] == ItemChanges(added=1, removed=1, changed=1, same=1, not_compared=1)
    assert items["rows"] == ItemChanges(added=4, removed=5, same=7, not_compared=904)


def test_what_an_archive_says_of_its_tables_compares_with_what_a_database_holds() -> None:
    content = Fingerprint(tables={"public.t": Table(3, "77")}, sequences={}, large_objects=Table(0, "0"), objects={})

    assert tables_of(content.comparable()) == {"public.t": (3, "3 rows, 77")}
    assert tables_of(None) is None


def test_an_archive_of_very_many_tables_says_nothing_of_each() -> None:
    tables = {f"public.t{n}": Table(n, "1") for n in range(300)}
    content = Fingerprint(tables=tables, sequences={}, large_objects=Table(0, "0"), objects={})

    assert tables_of(content.comparable()) is None


@pytest.mark.parametrize(
    ("source", "bridged", "said"),
    [
        ("", [], ""),
        ("17.2 (Debian 17.2-1)", [], ""),
        ("15.20", [], "Written by PostgreSQL 15.20, goes into 17.10: nothing of it had to be left out for that."),
        ("18.6", ["a was left out", "b too"], "Written by PostgreSQL 18.6, goes into 17.10: a was left out; b too."),
        ("9.6.24", [], "Written by PostgreSQL 9.6.24, goes into 17.10: nothing of it had to be left out for that."),
    ],
    ids=["not known", "the same major", "older", "newer", "of two numbers"],
)
def test_versions_are_named_where_their_majors_differ(source: str, bridged: list[str], said: str) -> None:
    loaded = Loaded("sql", source_version=source, bridged=bridged)

    assert bridging_of(loaded, "17.10") == said
