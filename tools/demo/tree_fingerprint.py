"""Whether two folders hold the same: names, kinds, contents, modes, owners, times, links.

Written apart from the agent's own reading of folders on purpose: what both got wrong the same way would look equal.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class TreeFingerprint:
    """What lies under each path, in words; paths are relative, with undecodable bytes as os.fsdecode has them."""

    entries: dict[str, str]

    @property
    def sha256(self) -> str:
        """Of all of it, in lower-case hex."""
        text = "".join(f"{path}\0{what}\0" for path, what in sorted(self.entries.items()))
        return hashlib.sha256(os.fsencode(text)).hexdigest()

    def differences(self, other: TreeFingerprint) -> Sequence[str]:
        """One sentence for each path that differs; empty when both are the same."""
        return [
            f"{path!r} is {self.entries.get(path, 'missing')} here and {other.entries.get(path, 'missing')} there"
            for path in sorted({*self.entries, *other.entries})
            if self.entries.get(path) != other.entries.get(path)
        ]


def tree_fingerprint(directory: Path, *, is_wanted: Callable[[str], bool] = lambda path: True) -> TreeFingerprint:
    """Everything below a folder, the folder itself left out. Reads every byte.

    Args:
        is_wanted: told a relative path; False leaves it out, and what is below it.
    """
    entries: dict[str, str] = {}

    def walk(folder: Path, prefix: str) -> None:
        for entry in os.scandir(folder):
            path = prefix + entry.name
            if not is_wanted(path):
                continue
            entries[path] = _describe(Path(entry.path))
            if entry.is_dir(follow_symlinks=False):
                walk(Path(entry.path), f"{path}/")

    walk(directory, "")
    return TreeFingerprint(entries)


def _describe(path: Path) -> str:
    found = path.lstat()
    words = [f"{stat.filemode(found.st_mode)} of {found.st_uid}:{found.st_gid}"]
    if stat.S_ISLNK(found.st_mode):
        return f"{words[0]} to {os.readlink(path)!r}"
    if stat.S_ISREG(found.st_mode):
        words.append(f"{found.st_size} bytes, {found.st_nlink} names, SHA-256 {_digest(path)}")
    words.append(f"of second {int(found.st_mtime)}")
    return ", ".join(words)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()[:16]
