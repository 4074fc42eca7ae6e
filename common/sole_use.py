"""One program to a state directory: a second one would overwrite what the first believes to be its own."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


class InUseError(Exception):
    """The directory is not for this process alone; the text says which one and why."""


@contextlib.contextmanager
def sole_use(directory: Path, *, program: str) -> Iterator[None]:
    """Keep a directory to this process for the block.

    What counts is a lock on the file `lock` in it, not that file, which stays: the kernel, or the server of a network
    volume, lets go of a lock when its process ends, however that ends.

    Args:
        program: "agent" or "controller", for texts.
    Raises:
        InUseError: another process has it, or the volume has no locks.
        OSError: the file cannot be opened.
    """
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as failure:
            raise InUseError(
                f"Another {program} uses the state directory {directory}. Stop it first, or give this one another "
                "`state_directory`."
            ) from failure
        except OSError as failure:
            raise InUseError(
                f"The state directory {directory} cannot be kept from a second {program}: its volume takes no file "
                f"locks ({(failure.strerror or 'unknown error').lower()}). Choose one that does as `state_directory`."
            ) from failure
        yield
    finally:
        os.close(descriptor)
