"""What is named in a sentence, and what is only counted."""

from __future__ import annotations

import pytest

from agent.archives.tallies import Tally


@pytest.mark.parametrize(
    ("paths", "sentences"),
    [
        ("", []),
        ("a", ["1 thing: 'a'."]),
        ("abcde", ["5 things: 'a', 'b', 'c', 'd', 'e'."]),
        ("abcdefg", ["7 things: 'a', 'b', 'c', 'd', 'e' and 2 more."]),
    ],
)
def test_the_first_are_named_and_the_rest_is_counted(paths: str, sentences: list[str]) -> None:
    tally = Tally()
    for path in paths:
        tally.add(path)

    assert tally.sentence("{} thing", "{} things") == sentences
