"""A path below a directory, opened component by component, so that no link on it is ever followed."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from agent.archives.members import printable
from common.errors import ArchiveRefusedError

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class OpenedPath:
    """The directory used last and those above it, opened: the next entry is mostly in the same."""

    def __init__(self, root: int, make: Callable[[str, int], None]) -> None:
        self._make = make
        self._names: list[str] = []
        self._descriptors = [os.dup(root)]

    def directory(self, path: tuple[str, ...], *, create: bool = True) -> int:
        """A descriptor of a directory, valid until the next call.

        Raises:
            ArchiveRefusedError: a part of the path is a link or a file.
            FileNotFoundError: it is not there, and not to be created.
        """
        known = 0
        while known < min(len(path), len(self._names)) and path[known] == self._names[known]:
            known += 1
        self._shorten(known)
        for name in path[known:]:
            self._descend(name, path, create=create)
        return self._descriptors[-1]

    def close(self) -> None:
        """Close all of them."""
        self._shorten(0)
        os.close(self._descriptors.pop())

    def _shorten(self, depth: int) -> None:
        while len(self._names) > depth:
            self._names.pop()
            os.close(self._descriptors.pop())

    def _descend(self, name: str, path: tuple[str, ...], *, create: bool) -> None:
        parent = self._descriptors[-1]
        try:
            try:
                descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
            except FileNotFoundError:
                if not create:
                    raise
                self._make(name, parent)
                descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
        except OSError as failure:
            if failure.errno in (errno.ELOOP, errno.ENOTDIR):
                raise ArchiveRefusedError(
                    f"The archive has an entry whose path goes through a link or a file: {printable('/'.join(path))}."
                ) from failure
            raise
        self._descriptors.append(descriptor)
        self._names.append(name)
