"""Keys of a settings file that there are not; msgspec names such a key too, and not those that there are."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec


def unknown_key(raw: Mapping[str, Any], settings: type, place: str = "") -> tuple[str, Sequence[str]] | None:
    """The first key that is none of the settings', with those that there are in its place; None: all are known.

    Args:
        settings: a dataclass or msgspec.Struct, whose fields may be such classes, or lists of them.
        place: of `raw` in the file, for example "rest.".
    """
    hints = typing.get_type_hints(settings)
    for key, value in raw.items():
        if key not in hints:
            return f"{place}{key}", [f"{place}{name}" for name in hints]
        parts = [part for part in (hints[key], *typing.get_args(hints[key])) if _has_fields(part)]
        is_list = typing.get_origin(hints[key]) in (list, tuple)
        for below, inside in _tables(f"{place}{key}", value, is_list=is_list):
            for part in parts:
                if (found := unknown_key(inside, part, f"{below}.")) is not None:
                    return found
    return None


def _tables(place: str, value: object, *, is_list: bool) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """What of a value can have keys; something else than is wanted has none, and is told of by who converts it."""
    values = value if is_list and isinstance(value, list) else []
    inside = [(f"{place}[{index}]", one) for index, one in enumerate(values)] if is_list else [(place, value)]
    return [(below, one) for below, one in inside if isinstance(one, Mapping)]


def _has_fields(part: object) -> typing.TypeGuard[type]:
    return isinstance(part, type) and (dataclasses.is_dataclass(part) or issubclass(part, msgspec.Struct))
