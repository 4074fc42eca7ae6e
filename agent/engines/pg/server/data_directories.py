"""Which directory that the agent sees is a running server's own, where the server does not tell.

A directory says whose it is: the cluster's number in its control file, the port in the file of its running server.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agent.engines.mounts import mounts

_USUAL = ("/var/lib/postgresql", "/var/lib/pgsql", "/bitnami/postgresql")
_LEVELS = 2
"""Below a mount or one of the usual places, as /var/lib/postgresql/17/main is."""
_MOST_ENTRIES = 2000
"""Looked at in one mount, which may be another app's with millions of files."""
_WITHOUT_FILES = frozenset(
    ("autofs", "bpf", "cgroup", "cgroup2", "debugfs", "devpts", "devtmpfs", "mqueue", "proc", "sysfs", "tracefs")
)
"""Types of mounts that hold no data."""
_PORT_LINE = 3
"""Of postmaster.pid, counted from 0 (LOCK_FILE_LINE_PORT in miscadmin.h)."""


@dataclass(frozen=True)
class Cluster:
    """What a server says of itself to everybody; a standby has its primary's number, but not its port."""

    number: int
    port: int


def belongs(directory: Path, cluster: Cluster) -> bool | None:
    """Whether a running server keeps its data there; None: the agent may not look."""
    try:
        with (directory / "global" / "pg_control").open("rb") as control:
            number = int.from_bytes(control.read(8), sys.byteorder)
        lines = (directory / "postmaster.pid").read_text(errors="replace").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return None
    return number == cluster.number and lines[_PORT_LINE : _PORT_LINE + 1] == [str(cluster.port)]


def find_directory(cluster: Cluster) -> Path | None:
    """Where a server's processes work that the agent sees, in what is mounted for it, and in the usual places.

    Blocking.
    """
    for directory in _candidates():
        if belongs(directory, cluster):
            return directory
    return None


def _candidates() -> Iterator[Path]:
    for process in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError):
            directory = Path("/proc", process, "cwd").readlink()
            if (directory / "PG_VERSION").exists():
                yield directory
    for root in dict.fromkeys([*_mounts(), *map(Path, _USUAL)]):
        yield from _below(root)


def _mounts() -> Iterator[Path]:
    """Not the root: what is not mounted there for the agent is its own."""
    with suppress(OSError):
        for mount in mounts():
            if mount.point != "/" and mount.type not in _WITHOUT_FILES:
                yield Path(mount.point)


def _below(root: Path) -> Iterator[Path]:
    level, left = [root], _MOST_ENTRIES
    for depth in range(_LEVELS + 1):
        found: list[Path] = []
        for directory in level:
            with suppress(OSError):
                if (directory / "PG_VERSION").exists():
                    yield directory
            if depth < _LEVELS:
                inside, left = _directories(directory, left)
                found += inside
        level = found


def _directories(directory: Path, most: int) -> tuple[list[Path], int]:
    """Those in a directory, and how many more entries may be looked at."""
    found = []
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if most <= 0:
                break
            most -= 1
            if entry.is_dir(follow_symlinks=False):
                found.append(Path(entry.path))
    return found, most
