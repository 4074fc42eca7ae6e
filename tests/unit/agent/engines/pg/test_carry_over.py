"""Values of list settings, taken apart as the server puts them together."""

from __future__ import annotations

import pytest

from agent.engines.pg.belongings.carry_over import split_list


@pytest.mark.parametrize(
    ("value", "elements"),
    [
        ("public", ["public"]),
        ('"$user", public', ["$user", "public"]),
        ('"a ""b"" c", d', ['a "b" c', "d"]),
        ('"a, b",c ,  d', ["a, b", "c", "d"]),
        ('""', [""]),
        ("", [""]),
        ('""""', ['"']),
        ("größe, 名前", ["größe", "名前"]),
    ],
)
def test_elements_lose_their_quotes(value: str, elements: list[str]) -> None:
    assert split_list(value) == elements
