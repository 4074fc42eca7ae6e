"""What a preview says, told from what is known of both sides."""

from __future__ import annotations

import pytest

from agent.engines.pg.exports.fingerprint import SCHEME, Fingerprint, Table
from agent.engines.pg.imports.preview import Content, Held, bridging_of, changes_by_file, items_between, tables_of
from agent.engines.pg.loading.load import Loaded
from agent.item_changes import ItemChanges
from common import fingerprints as comparable


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
    assert items["rows"] == ItemChanges(added=4 + 1 + 1, removed=5, same=7, not_compared=2 + 900)


def test_rows_that_a_table_will_have_less_are_removed_though_nobody_compared_them() -> None:
    items = items_between({"t": (1_200_000, None)}, {"t": (400_000, "400000 rows, 1")})

    assert items["rows"] == ItemChanges(removed=800_000, not_compared=400_000)


@pytest.mark.parametrize(("now", "after"), [((0, None), (400, "400 rows, 1")), ((400, "400 rows, 1"), (0, None))])
def test_a_table_that_nobody_counted_is_not_told_to_gain_or_lose_rows(
    now: tuple[int, str | None], after: tuple[int, str | None]
) -> None:
    assert items_between({"t": now}, {"t": after})["rows"] == ItemChanges(not_compared=400)


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"t": (1000, "1000 rows, 1"), "u": (5, "5 rows, 2")}, "Now 2 tables with 1,005 rows;"),
        ({"t": (1000, None), "u": (5, "5 rows, 2"), "view": (7, None)}, "Now 2 tables with about 1,005 rows;"),
        ({"t": (0, None), "u": (5, "5 rows, 2")}, "Now 2 tables with more than 5 rows;"),
        ({"t": (0, None), "u": (0, None)}, "Now 2 tables with an unknown number of rows;"),
    ],
    ids=["counted", "by the statistics", "one not known", "none known"],
)
def test_the_rows_of_now_are_told_as_well_as_they_are_known(held: Held, said: str) -> None:
    before = Content(frozenset({"t", "u"}), {}, rows=0)

    told = changes_by_file(
        before, Loaded("sql"), held=held, server_version="17.10", present_bytes=0, upload_bytes=0, warnings=()
    )

    assert told.changes[0].startswith(said)


def test_what_an_archive_says_of_its_tables_compares_with_what_a_database_holds() -> None:
    content = Fingerprint(tables={"public.t": Table(3, "77")}, sequences={}, large_objects=Table(0, "0"), objects={})

    assert tables_of(content.comparable()) == {"public.t": (3, "3 rows, 77")}
    assert tables_of(None) is None


def test_an_archive_of_very_many_tables_says_nothing_of_each() -> None:
    tables = {f"public.t{n}": Table(n, "1") for n in range(300)}
    content = Fingerprint(tables=tables, sequences={}, large_objects=Table(0, "0"), objects={})

    assert tables_of(content.comparable()) is None


@pytest.mark.parametrize("rows", [str(2**63), "9" * 26, "9" * 5000, "-1", "many"])
def test_an_archive_that_tells_no_sane_number_of_rows_says_nothing_of_its_tables(rows: str) -> None:
    told = comparable.Fingerprint.of(SCHEME, {"table public.t": f"{rows} rows, 77"})

    assert tables_of(told) is None


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
