"""A recipe's table in the agent's configuration, and the files with secrets that it names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from common.errors import AppUnavailableError, InvalidRequestError

_Settings = TypeVar("_Settings", bound=msgspec.Struct)


def checked(table: Mapping[str, object], kind: type[_Settings], *, recipe: str) -> _Settings:
    """The table's values; InvalidRequestError names what is wrong."""
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as failure:
        raise InvalidRequestError(f"The settings of recipe {recipe} are wrong: {failure}.") from failure


def data_directory(setting: str, *, of: str) -> Path:
    """The setting `directory` of a recipe that exchanges what is below it.

    Raises:
        InvalidRequestError: it is no absolute path, or the whole file system.
    """
    if not setting.startswith("/") or Path(setting) == Path("/"):
        raise InvalidRequestError(f"The setting `directory` has to be the absolute path of {of}.")
    return Path(setting)


def read_secret(file: str) -> str:
    """A file's text without the line end; empty for no file. Read each time, so the file may be rotated.

    Raises:
        AppUnavailableError: it cannot be read.
    """
    if not file:
        return ""
    try:
        return without_line_end(Path(file).read_text())
    except (OSError, UnicodeDecodeError) as failure:
        reason = getattr(failure, "strerror", "") or "it is no text"
        raise AppUnavailableError(f"The file {file} with a secret cannot be read: {reason}.") from failure


def without_line_end(text: str) -> str:
    """As whoever wrote a secret into a file meant it: an editor ends the line."""
    return text.removesuffix("\n").removesuffix("\r")
