"""A program's settings file: TOML, in which every key is known."""

from __future__ import annotations

import dataclasses
import tomllib
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec


class SettingsError(Exception):
    """The settings cannot be used; the text names the file and the key. Not an answer to a caller: the program ends."""


def read_toml(path: Path, settings: type) -> dict[str, Any]:
    """What is in a settings file; the values are not checked.

    Args:
        settings: what will be made of it: a dataclass or msgspec.Struct, whose fields may be such classes, or lists of
            them.
    Raises:
        SettingsError: it cannot be read, is not TOML, or has a key that is none of the settings'.
    """
    try:
        raw = tomllib.loads(path.read_text())
    except OSError as failure:
        raise SettingsError(f"{path} cannot be read: {(failure.strerror or 'unknown error').lower()}.") from failure
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as failure:
        raise SettingsError(f"{path} is not TOML: {failure}.") from failure
    # msgspec refuses such a key as well, but does not say which there are.
    if (unknown := _unknown_key(raw, settings)) is not None:
        key, known = unknown
        raise SettingsError(f"{path}: there is no setting `{key}`; there are {', '.join(known)}.")
    return raw


def _unknown_key(raw: Mapping[str, Any], settings: type, place: str = "") -> tuple[str, Sequence[str]] | None:
    """The first key that is none of the settings', with those that there are in its place; None: all are known.

    Args:
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
                if (found := _unknown_key(inside, part, f"{below}.")) is not None:
                    return found
    return None


def _tables(place: str, value: object, *, is_list: bool) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """The tables in a value, each with its place. What is no table where one belongs is left to who converts it."""
    values = value if is_list and isinstance(value, list) else []
    inside = [(f"{place}[{index}]", one) for index, one in enumerate(values)] if is_list else [(place, value)]
    return [(below, one) for below, one in inside if isinstance(one, Mapping)]


def _has_fields(part: object) -> typing.TypeGuard[type]:
    return isinstance(part, type) and (dataclasses.is_dataclass(part) or issubclass(part, msgspec.Struct))
