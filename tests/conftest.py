"""Fixtures for all tests; those of one folder are in its own conftest.py."""

from __future__ import annotations

import signal

pytest_plugins = [
    "tests.fixtures.servers",
    "tests.fixtures.redis_servers",
    "tests.fixtures.minio_servers",
    "tests.fixtures.mariadb_apps",
]


def pytest_configure() -> None:
    """In the background of a shell SIGINT is ignored, and would be by what tests start (POSIX sh, 2.11)."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
