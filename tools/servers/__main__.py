"""The command line: get servers and tools, list them, or print where one lies."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools.servers.cache import ServerUnavailableError, cache_directory
from tools.servers.go_programs import grpcurl, minio
from tools.servers.mariadb import MARIADB_NAMES, mariadb
from tools.servers.mysql import MYSQL_NAMES, mysql
from tools.servers.n8n import n8n
from tools.servers.postgresql import MAJORS, postgres
from tools.servers.rclone import rclone
from tools.servers.redis import REDIS_NAMES, redis
from tools.servers.toolchains import go_toolchain, npm_command


def _postgres_bin(major: int) -> Callable[[], Path]:
    return lambda: postgres(major).bin_directory


def _redis_program(name: str) -> Callable[[], Path]:
    return lambda: redis(name).server


def _mysql_program(name: str) -> Callable[[], Path]:
    return lambda: mysql(name).server


def _mariadb_program(name: str) -> Callable[[], Path]:
    return lambda: mariadb(name).server


GETTERS: dict[str, Callable[[], Path]] = {
    **{f"postgresql-{major}": _postgres_bin(major) for major in MAJORS},
    **{name: _redis_program(name) for name in REDIS_NAMES},
    MARIADB_NAMES[0]: _mariadb_program(MARIADB_NAMES[0]),
    "grpcurl": grpcurl,
    "minio": minio,
    "rclone": rclone,
    "go": lambda: go_toolchain().go,
    "npm": lambda: npm_command()[-1],
}
SEPARATE: dict[str, Callable[[], Path]] = {
    "n8n": lambda: n8n().program,
    **{name: _mariadb_program(name) for name in MARIADB_NAMES[1:]},
    **{name: _mysql_program(name) for name in MYSQL_NAMES},
}
"""Too large to be got unless they are named, or needed by `make matrix` alone."""


def _get(name: str) -> bool:
    began_at = time.monotonic()
    try:
        path = {**GETTERS, **SEPARATE}[name]()
    except ServerUnavailableError as error:
        print(f"servers: {name}: FAILED after {time.monotonic() - began_at:.1f} s: {error}", file=sys.stderr)
        return False
    print(f"servers: {name}: ready after {time.monotonic() - began_at:.1f} s in {path}", flush=True)
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0: all that was asked for is there; 1: something cannot be had, said with its reason."""
    parser = argparse.ArgumentParser(prog="python -m tools.servers", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    get = commands.add_parser("get", help="get what is named, or everything, several at a time")
    get.add_argument("names", nargs="*", metavar="NAME", choices=[[], *GETTERS, *SEPARATE])
    commands.add_parser("list", help="print the names and the cache folder")
    path = commands.add_parser("path", help="print where one lies, getting it when it is not there")
    path.add_argument("name", metavar="NAME", choices=[*GETTERS, *SEPARATE])
    options = parser.parse_args(arguments)

    if options.command == "list":
        print(*GETTERS, *SEPARATE, sep="\n")
        print(f"cache: {cache_directory()}", file=sys.stderr)
        return 0
    if options.command == "path":
        try:
            print({**GETTERS, **SEPARATE}[options.name]())
        except ServerUnavailableError as error:
            print(f"servers: {error}", file=sys.stderr)
            return 1
        return 0
    # Most of the time goes into waiting for a registry, so more than there are cores.
    with ThreadPoolExecutor(max_workers=4) as pool:
        return 0 if all(list(pool.map(_get, options.names or GETTERS))) else 1


if __name__ == "__main__":
    sys.exit(main())
