"""Tables compared by digests of their parts."""

from __future__ import annotations

import pytest

from agent.engines.table_parts import MOST_PARTS, Parts, compare, compare_all, width_for
from agent.item_changes import ItemChanges

COLUMNS = ("id", "name")


def things(**parts: int) -> Parts:
    return Parts(COLUMNS, 0, {name: (1, digest) for name, digest in parts.items()})


def blocks(width: int, *ids: int) -> Parts:
    """Rows whose digest is a power of two, so that no two blocks have the same."""
    return Parts(COLUMNS, 1, {str(number): (1, 1 << number) for number in ids}).widened(width)


def test_things_are_told_by_name_and_compared_by_digest() -> None:
    changes = compare(things(a=1, b=2, c=3), things(b=2, c=4, d=5))

    assert changes == ItemChanges(added=1, removed=1, changed=1, same=1)


def test_blocks_of_different_sizes_are_compared_at_the_larger_size() -> None:
    changes = compare(blocks(1, *range(8)), blocks(4, *range(8)))

    assert changes == ItemChanges(same=8)


def test_of_a_block_that_differs_only_the_difference_in_number_is_told() -> None:
    changes = compare(blocks(4, 0, 1, 2, 3, 4, 5), blocks(4, 0, 1, 2, 3, 4, 6, 7, 8))

    assert changes == ItemChanges(added=2, same=4, not_compared=2)


def test_rows_of_other_columns_are_not_compared() -> None:
    other = Parts((*COLUMNS, "more"), 0, {"a": (1, 1), "b": (1, 2)})

    assert compare(things(a=1, c=3), other) == ItemChanges(added=1, removed=1, not_compared=1)


def test_what_is_known_of_one_side_only_is_left_out() -> None:
    assert compare_all({"tags": things(a=1)}, {"users": things(a=1)}) == {}


@pytest.mark.parametrize("highest", [0, 1, MOST_PARTS - 1, MOST_PARTS, 10**9])
def test_blocks_are_never_too_many_and_as_small_as_possible(highest: int) -> None:
    width = width_for(highest)

    assert highest // width < MOST_PARTS
    assert width == 1 or highest // (width // 2) >= MOST_PARTS
