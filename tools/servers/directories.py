"""Temporary folders for servers: short enough for unix sockets, open to the server user, swept up after killed runs."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = "mathison-"
OWNED = ".owned"
"""A file in each such folder, locked as long as the process that made the folder lives."""
SWEPT_AFTER_SECONDS = 60.0
"""Younger folders are left alone: their maker may not have locked them yet, or their server may still be ending."""


def temporary_root() -> Path:
    """The system's temporary folder, or /tmp when that one's path would not leave room for a socket's (107 bytes)."""
    chosen = Path(tempfile.gettempdir()).resolve()
    return chosen if len(str(chosen)) <= 40 else Path("/tmp")  # noqa: S108


@contextmanager
def short_directory(name: str = "tmp") -> Iterator[Path]:
    """A folder that everyone may enter, removed afterwards; after a killed run, removed by a later one."""
    sweep()
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{name}-", dir=temporary_root()))
    folder.chmod(0o755)
    with (folder / OWNED).open("w") as owned:
        fcntl.flock(owned, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def sweep() -> None:
    """Remove such folders whose maker is dead. Folders of other users are theirs to remove."""
    for folder in temporary_root().glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            # The folder itself may belong to the server user by now.
            is_ours = (folder / OWNED).lstat().st_uid == os.geteuid()
            if not is_ours or time.time() - folder.stat().st_mtime < SWEPT_AFTER_SECONDS:
                continue
            with (folder / OWNED).open("r+") as owned:
                fcntl.flock(owned, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
