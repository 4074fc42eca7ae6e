"""Fixtures for all tests; those of one folder are in its own conftest.py."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import tempfile
from collections import Counter
from pathlib import Path

import pytest

pytest_plugins = [
    "tests.fixtures.servers",
    "tests.fixtures.redis_servers",
    "tests.fixtures.minio_servers",
    "tests.fixtures.mariadb_apps",
]

_UNIT = Path(__file__).parent / "unit"
_CLI = _UNIT / "cli"
_MEMORY = Path("/dev/shm")
_ROOM_BYTES = 8 << 30


def pytest_configure() -> None:
    # In the background of a shell SIGINT is ignored, and would be by what tests start (POSIX sh, 2.11).
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if "TMPDIR" not in os.environ and _memory_bytes() >= _ROOM_BYTES:
        # Before anything asks where temporary files go; the processes that tests start inherit it.
        os.environ["TMPDIR"] = tempfile.tempdir = str(_MEMORY)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Spread each folder's files over the run, so that those that wait for their servers meet those that compute.

    The short ones of tests/unit stay last: processes that share the files then end at about the same time.
    """
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    sizes = Counter(path.parent for path in files)
    seen: Counter[Path] = Counter()
    places = {}
    for path, found in files.items():
        is_unit = _UNIT in path.parents
        if is_unit and _CLI not in path.parents and any(item.get_closest_marker("variant") for item in found):
            raise pytest.UsageError(f"{path} has variants, and `make test-variants` does not look there")
        seen[path.parent] += 1
        places[path] = (is_unit, (seen[path.parent] - 0.5) / sizes[path.parent])
    items[:] = itertools.chain.from_iterable(files[path] for path in sorted(files, key=lambda path: places[path]))


def _memory_bytes() -> int:
    """What tests may write to memory.

    Servers make and remove thousands of small files, which costs three times the CPU on ext4: it looks through all
    inodes that were freed in the last seconds for each new one.
    """
    try:
        # Containers forbid to run programs there, and before Linux 6.6 files there have no attributes.
        if os.statvfs(_MEMORY).f_flag & os.ST_NOEXEC:
            return 0
        with tempfile.NamedTemporaryFile(dir=_MEMORY) as probe:
            os.setxattr(probe.name, "user.probe", b"")
        room = shutil.disk_usage(_MEMORY).free
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return min(room, int(lines["MemAvailable"].split()[0]) << 10)
    except (OSError, KeyError):
        return 0
