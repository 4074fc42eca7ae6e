"""What an error says of the app's data."""

from __future__ import annotations

import pytest

from common.errors import ArchiveRefusedError, say_unchanged


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("It is damaged.", "It is damaged. Nothing was changed."),
        ("It is damaged", "It is damaged. Nothing was changed."),
        ("It is damaged; nothing was changed.", "It is damaged; nothing was changed."),
        ("It is damaged. Nothing was changed.", "It is damaged. Nothing was changed."),
        ("Nothing was changed. It is damaged.", "Nothing was changed. It is damaged."),
    ],
)
def test_that_nothing_was_changed_is_said_once(text: str, told: str) -> None:
    error = ArchiveRefusedError(text)

    for _ in range(2):
        say_unchanged(error)

    assert error.text == str(error) == told
