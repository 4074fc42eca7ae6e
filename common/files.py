"""Files that are there whole or not at all, whatever ends the process or the machine in between."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_atomically(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write a file under a temporary name, fsync it, rename it, fsync its directory.

    On failure the file is what it was before. A kill can leave `.<name>.<random>` behind, which nobody reads and
    `remove_unfinished` removes.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(descriptor, mode)
            file.flush()
            os.fsync(descriptor)
        os.rename(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def remove_unfinished(path: Path) -> None:
    """Remove what writers of this file left that were killed; nobody may be writing it now."""
    for temporary in path.parent.glob(f".{path.name}.*"):
        temporary.unlink(missing_ok=True)


def sync_directory(directory: Path) -> None:
    """Make renames and removals in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def state_directory(path: Path) -> Path:
    """As `private_directory`, for what a program's settings name: its OSError is a sentence for who wrote them."""
    try:
        return private_directory(path)
    except OSError as failure:
        said = "it is no directory" if isinstance(failure, FileExistsError) else (failure.strerror or "").lower()
        raise OSError(
            f"The state directory {path} cannot be used: {said}. Give this program's user the right to it, or name "
            "another as `state_directory`."
        ) from failure


def private_directory(path: Path) -> Path:
    """Make a directory, and those above it, that only its owner can read; its mode is corrected when it exists."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.chmod(0o700)
    return path
