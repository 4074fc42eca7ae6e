"""What of an import's line in the journal is used here."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Protocol

from common.errors import NoSpaceError


class Notes(Protocol):
    """What of recipes.base.Record is used here.

    Attributes:
        key: 12 digits of hex.
    """

    key: str

    @property
    def facts(self) -> Mapping[str, object]: ...

    def save(self, **facts: bool | list[str]) -> None:
        """Merge into `facts` and make durable before returning."""


def names_in(notes: Notes, fact: str) -> list[str] | None:
    """A fact that is a list; None when it was not noted."""
    found = notes.facts.get(fact)
    return found if isinstance(found, list) else None


def note_done(notes: Notes, **facts: bool | list[str]) -> None:
    """Note what has been done: a full disk cannot take it back, and `recover` finds it out again."""
    with contextlib.suppress(NoSpaceError):
        notes.save(**facts)


def numbered(notes: Notes, fact: str, wanted: list[str]) -> dict[str, int]:
    """The place of each name in a list that is written down, where it is found again; those that are new are added.

    Returns when that is durable.
    """
    known = names_in(notes, fact) or []
    if added := [name for name in wanted if name not in known]:
        known = [*known, *added]
        notes.save(**{fact: known})
    return {name: number for number, name in enumerate(known)}
