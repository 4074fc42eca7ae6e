"""What is on a drive compared with what is staged beside it, as a walk of the drive meets it; nothing is held.

The staged side is looked up by path, so the time that it takes is the walk's. What only the staged side has is what is
left of its own count.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from agent.engines.filesystem import FILE, opened_directory
from agent.engines.minio.drive import contents, xlmeta
from agent.engines.minio.drive.layout import CONFIG, META

MAX_META_BYTES = 256 << 20
ACCOUNTS = {
    "users": ("users", "identity.json"),
    "service_accounts": ("service-accounts", "identity.json"),
    "groups": ("groups", "members.json"),
    "policies": ("policies", "policy.json"),
}
"""Kinds by the directories of `.minio.sys/config/iam` that hold one for each, and the file in there."""


class Changes(msgspec.Struct):
    """What becomes of one kind of thing; see ItemChanges in agent.recipes.base."""

    added: int = 0
    removed: int = 0
    changed: int = 0
    same: int = 0
    not_compared: int = 0

    def note(self, now: object, after: object) -> None:
        """One thing, by its content on both sides; None: it is not there."""
        if now is None:
            self.added += 1
        elif after is None:
            self.removed += 1
        elif now == after:
            self.same += 1
        else:
            self.changed += 1


class Comparison:
    """Of the tree that is walked with another.

    Attributes:
        changes: by kind, so far.
    """

    def __init__(self, other: int, content_of: Callable[[str, xlmeta.ObjectMeta], Mapping[str, int]]) -> None:
        """
        Args:
            other: descriptor of the other tree.
            content_of: what tells the content of each version, by its id, of an object's path and file.
        """
        self.changes = {"objects": Changes(), "versions": Changes()}
        self._other = other
        self._content_of = content_of

    def meet(self, path: str, now: Mapping[str, int]) -> None:
        """An object of the walked tree: the path of its xl.meta, and its versions as `content_of` has them."""
        if not now:
            return
        after: Mapping[str, int] = {}
        with contextlib.suppress(OSError, ValueError):
            after = self._content_of(path, xlmeta.read(read_file(path, self._other)))
        self.changes["objects"].note(now, after or None)
        for version, number in now.items():
            self.changes["versions"].note(number, after.get(version))

    def meet_accounts(self, root: int) -> None:
        """Users and the like, of both trees."""
        for kind, (directory, file) in ACCOUNTS.items():
            now, after = (_accounts(side, directory, file) for side in (root, self._other))
            self.changes[kind] = Changes()
            for name in now.keys() | after.keys():
                self.changes[kind].note(now.get(name), after.get(name))


def read_file(path: str, directory: int) -> bytes:
    """The content of a file below a directory, an xl.meta as a rule; of one that is absurdly long its magic, so that it
    is made up.
    """
    descriptor = os.open(path, FILE, dir_fd=directory)
    with open(descriptor, "rb", buffering=0) as file:
        return file.readall() if os.fstat(descriptor).st_size < MAX_META_BYTES else xlmeta.MAGIC


def read_own(directory: Path) -> bytes:
    """What MinIO reads in one of its own files, on its drive.

    Args:
        directory: that is the file.
    Raises:
        OSError, ValueError: it is not there, or cannot be read.
    """
    with opened_directory(directory) as parent:
        return contents.own(read_file(META, parent), parent)


def _accounts(root: int, directory: str, file: str) -> dict[str, str]:
    """By name, what MinIO computed of its content when it was stored."""
    found = {}
    path = f"{CONFIG}/iam/{directory}"
    with contextlib.suppress(FileNotFoundError):
        opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)
        try:
            names = os.listdir(opened)
        finally:
            os.close(opened)
        for name in names:
            with contextlib.suppress(OSError, ValueError):
                [newest, *_] = xlmeta.read(read_file(f"{path}/{name}/{file}/{META}", root)).versions
                found[name] = newest.etag
    return found
