"""What is mounted where, as the kernel tells this process."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_OCTAL = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """What is mounted somewhere.

    Attributes:
        point: its path; bytes that are no UTF-8 are surrogates.
        type: of its filesystem, as mount shows it, for example "ext4".
        device: major and minor number, for example "259:1".
    """

    point: str
    type: str
    device: str


def mounts() -> Iterator[Mount]:
    """All that this process sees; OSError where the kernel does not tell."""
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        yield Mount(_OCTAL.sub(lambda found: chr(int(found[1], 8)), fields[4]), after.split(" ")[0], fields[2])


def mounts_below(directory: Path) -> list[str]:
    """Paths below a directory on which something else is mounted, a single file perhaps."""
    above = f"{directory.resolve()}/".replace("//", "/")
    return sorted(mount.point for mount in mounts() if mount.point.startswith(above))


def filesystem_type(directory: Path) -> str:
    """Its name as mount shows it, for example "ext4"; empty when it cannot be told."""
    device = os.stat(directory).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    return next((mount.type for mount in mounts() if mount.device == wanted), "")
