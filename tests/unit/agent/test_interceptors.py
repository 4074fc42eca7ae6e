from __future__ import annotations

import pytest

from agent.interceptors import shortened


def test_a_short_text_stays_as_it_is() -> None:
    assert shortened("all of it", 9) == "all of it"


@pytest.mark.parametrize("letter", ["x", "ä", "漢", "🙂"])
@pytest.mark.parametrize("most_bytes", [50, 51, 52, 53])
def test_a_long_text_loses_its_middle(letter: str, most_bytes: int) -> None:
    text = shortened("begin " + letter * 1000 + " end", most_bytes)

    assert len(text.encode()) <= most_bytes
    assert text.startswith("begin " + letter)
    assert text.endswith(letter + " end")
