"""The folder outside the checkout where servers and tools are kept, each made once, whole or not at all.

`<cache>/servers/<name>/<version>` exists only when it is complete: it is made under another name and renamed, so a cut
installation is never taken for a whole one. Processes that want the same thing at once wait for the one that makes it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


class ServerUnavailableError(Exception):
    """A server or tool cannot be had on this machine; the text names it and the reason."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} cannot be had: {reason}")
        self.name = name
        self.reason = reason


def cache_directory() -> Path:
    """Where everything that can be made again is kept.

    Database servers refuse to run as root, so root starts them as another user, who has to be able to read this folder:
    root's own ~/.cache is closed to others, hence /var/cache.
    """
    chosen = os.environ.get("XDG_CACHE_HOME")
    if chosen and Path(chosen).is_absolute():
        return Path(chosen) / "mathison-data"
    if os.geteuid() == 0:
        return Path("/var/cache/mathison-data")
    return Path.home() / ".cache" / "mathison-data"


def kept_path(name: str, version: str) -> Path:
    """Where a version is, or will be once made."""
    return cache_directory() / "servers" / name / version


def kept(name: str, version: str, make: Callable[[Path], None]) -> Path:
    """The folder of a version, made now when it is not there.

    Args:
        make: fills the empty folder it is given; what it makes must bear being moved. When it raises, nothing is kept.
    Raises:
        ServerUnavailableError: passed on from `make`, or the cache cannot be written.
    """
    final = kept_path(name, version)
    if final.is_dir():
        return final
    making = final.with_name(f".{version}.making")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        # Others read the cache when root made it (cache_directory); a strict umask must not close it to them.
        for folder in (cache_directory(), cache_directory() / "servers", final.parent):
            folder.chmod(0o755)
    except OSError as error:
        raise ServerUnavailableError(f"{name} {version}", f"the cache cannot be written: {error}") from error
    with _locked(final.with_name(f".{version}.lock")):
        if final.is_dir():
            return final
        began_at = time.monotonic()
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir()
        try:
            make(making)
            let_everyone_read(making)
            making.rename(final)
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)
            raise
        print(f"servers: made {name} {version} in {time.monotonic() - began_at:.1f} s", file=sys.stderr, flush=True)
    return final


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that ends with the process, however that ends."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def let_everyone_read(folder: Path) -> None:
    """Give everyone the right to read what is in a folder, and to run what its owner may run."""
    for path in (folder, *folder.rglob("*")):
        if path.is_symlink():
            continue
        mode = stat.S_IMODE(path.stat().st_mode)
        opened = mode | 0o444 | (0o111 if path.is_dir() or mode & 0o100 else 0)
        if opened != mode:
            path.chmod(opened)
