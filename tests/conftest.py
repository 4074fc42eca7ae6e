"""Fixtures for all tests; those of one folder are in its own conftest.py."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path

pytest_plugins = [
    "tests.fixtures.servers",
    "tests.fixtures.redis_servers",
    "tests.fixtures.minio_servers",
    "tests.fixtures.mariadb_apps",
]

_MEMORY = Path("/dev/shm")
_ROOM_BYTES = 8 << 30


def pytest_configure() -> None:
    # In the background of a shell SIGINT is ignored, and would be by what tests start (POSIX sh, 2.11).
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if "TMPDIR" not in os.environ and _memory_bytes() >= _ROOM_BYTES:
        # Before anything asks where temporary files go; the processes that tests start inherit it.
        os.environ["TMPDIR"] = tempfile.tempdir = str(_MEMORY)


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
