"""Counts and lists in texts for people."""

from __future__ import annotations

import pytest

from common.wording import counted, some_of


@pytest.mark.parametrize(
    ("count", "many", "one", "said"),
    [
        (0, "keys", "", "0 keys"),
        (40_000, "keys", "", "40,000 keys"),
        (1, "keys", "", "1 key"),
        (1, "sorted sets", "", "1 sorted set"),
        (1, "hashes", "", "1 hash"),
        (1, "indexes", "", "1 index"),
        (1, "entries", "", "1 entry"),
        (1, "databases", "", "1 database"),
        (1, "with expiry", "", "1 with expiry"),
        (1, "keys in database 15", "", "1 key in database 15"),
        (2, "keys in database 15", "", "2 keys in database 15"),
        (1, "tables are", "table is", "1 table is"),
    ],
)
def test_a_single_thing_is_named_in_the_singular(count: int, many: str, one: str, said: str) -> None:
    assert counted(count, many, one) == said


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], ""),
        (["a"], "a"),
        (["a", "b"], "a, b"),
        (["a", "b", "c"], "a, b and 1 more"),
        (["a"] * 1002, "a, a and 1,000 more"),
    ],
)
def test_of_many_names_the_first_are_told_and_how_many_more_there_are(names: list[str], said: str) -> None:
    assert some_of(names, 2) == said
