"""Standard streams that were closed before the command began, or that take no more."""

from __future__ import annotations

import os
import sys
from typing import IO


def hold_closed_streams() -> None:
    """For a program's beginning: sys.stdout and sys.stderr are there, and no file or socket gets a stream's number.

    What is written to a standard output that was closed fails with EBADF, since a result must not be lost unseen; what
    goes to a standard error that was closed vanishes.
    """
    for number, mode in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # the lowest number that is free, which is this one
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)


def lead_nowhere(stream: IO[str]) -> None:
    """Drop what is buffered, which would else complain about it at exit, and whatever is written from now on."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
