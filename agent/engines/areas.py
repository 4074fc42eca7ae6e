"""What an import keeps on an app's volume, opened from the top down and seen to be the agent's own.

Whoever may write to the volume's top can put something else in the place of the first directory at any time: another
one, a link. Below that one nobody but the agent can, so what is opened here stays what it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from agent.engines.filesystem import opened_directory, own_directory
from common.errors import InternalError, ServiceError, ToolFailedError
from common.seals import RESERVED_DIRECTORY


class AreaGoneError(InternalError):
    """There is none, or not all of it."""


class Area(NamedTuple):
    """Descriptors of the directories on the way to `<volume>/.mathison-data/<key>`, and its own."""

    volume: int
    reserved: int
    area: int


@contextmanager
def opened_area(volume: Path, key: str) -> Iterator[Area]:
    """An import's, for the time of the block.

    Raises:
        AreaGoneError: it is not there.
        ToolFailedError: something else is, or it cannot be opened.
    """
    with contextlib.ExitStack() as stack:
        try:
            top = stack.enter_context(opened_directory(volume.resolve()))
            reserved = stack.enter_context(own_directory(RESERVED_DIRECTORY, top))
            area = stack.enter_context(own_directory(key, reserved))
        except OSError as failure:
            raise unusable(failure, key) from failure
        yield Area(top, reserved, area)


def unusable(failure: OSError, key: str) -> ServiceError:
    """The error of one that cannot be opened, or something in it that should be there."""
    if isinstance(failure, FileNotFoundError):
        return AreaGoneError(f"What import {key} keeps on the volume is not there any more.")
    return ToolFailedError(
        f"What import {key} keeps on the volume cannot be used: {failure.filename!r}: {failure.strerror}.",
        next_step=f"See what has been put there in place of the agent's own {RESERVED_DIRECTORY}, and put that back.",
    )
