"""Fixtures for all tests; those of one folder are in its own conftest.py."""

from __future__ import annotations

pytest_plugins = [
    "tests.fixtures.servers",
    "tests.fixtures.redis_servers",
    "tests.fixtures.minio_servers",
    "tests.fixtures.mariadb_apps",
]
