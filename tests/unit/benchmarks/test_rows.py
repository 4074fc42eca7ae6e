from __future__ import annotations

import pytest

from benchmarks.rows import Row, at_least, less_than, medians, ratio_at_least, ratio_at_most


@pytest.mark.parametrize(
    ("row", "is_met"),
    [
        (Row("x", 1.05, "s", ratio_at_most(1.05), 1.0), True),
        (Row("x", 1.06, "s", ratio_at_most(1.05), 1.0), False),
        (Row("x", 0.9, "MB/s", ratio_at_least(0.9), 1.0), True),
        (Row("x", 0.8, "MB/s", ratio_at_least(0.9), 1.0), False),
        (Row("x", 500, "MB/s", at_least(500)), True),
        (Row("x", 300, "ms", less_than(300)), False),
        (Row("x", 299, "ms", less_than(300)), True),
        (Row("x", 1, "MiB", None), None),
    ],
)
def test_a_row_says_whether_its_target_was_met(row: Row, *, is_met: bool | None) -> None:
    assert row.is_met is is_met
    assert row.to_json()["met"] is is_met


def test_a_row_as_json_has_all_that_is_documented() -> None:
    assert Row("export", 2.0, "s", ratio_at_most(1.05), 4.0).to_json() == {
        "name": "export",
        "ours": 2.0,
        "theirs": 4.0,
        "unit": "s",
        "ratio": 0.5,
        "target": "ratio <= 1.05",
        "met": True,
    }


def test_contestants_take_turns_and_the_order_changes() -> None:
    course: list[str] = []
    seconds = {"a": iter([3.0, 1.0, 2.0]), "b": iter([9.0, 7.0, 8.0])}

    def contestant(name: str) -> float:
        course.append(name)
        return next(seconds[name])

    found = medians({"a": lambda: contestant("a"), "b": lambda: contestant("b")}, rounds=3, say=lambda sentence: None)

    assert found == {"a": 2.0, "b": 8.0}
    assert course == ["a", "b", "b", "a", "a", "b"]
