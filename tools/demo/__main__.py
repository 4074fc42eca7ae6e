"""The demo's command line: `python -m tools.demo [--once] [--size-mb N]`, which `make demo ARGS=--once` calls."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from tools.demo.report import print_addresses, print_results
from tools.demo.story import Story
from tools.demo.subjects import Cache, Database, Objects, Subject, Volume
from tools.deployment import (
    CacheApp,
    DatabaseApp,
    Deployment,
    DeploymentError,
    ObjectStoreApp,
    VolumeApp,
    write_demo_file,
)
from tools.servers import ServerStartError, ServerUnavailableError

CHECKOUT = Path(__file__).resolve().parents[2]
STATE = CHECKOUT / ".demo"
SERVER_SETTINGS = {"shared_buffers": "128MB", "max_wal_size": "2GB"}
DATABASE_MEGABYTES = 240
CACHE_SHARE, OBJECTS_SHARE, VOLUME_SHARE = 8, 4, 3
"""By which the database's size is divided for the others' data sets."""
DISK_FACTOR = 8
"""Room needed, in data sets: the database with its indexes, the staged and the kept one, write-ahead log, archives."""
WIDTH = 100
LOOK_SECONDS = 1.0
"""Between two looks whether an import has restarted the volume's app, which the demo's file names."""


class DemoError(Exception):
    """The demo cannot run here and now; the text says why and what to do."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0: everything was equal; 1: something differs or a step failed."""
    parser = argparse.ArgumentParser(prog="python -m tools.demo", description="Real apps, moved before your eyes.")
    parser.add_argument("--once", action="store_true", help="end after the comparisons instead of waiting for Ctrl-C")
    parser.add_argument("--directory", type=Path, default=STATE, metavar="DIR", help="for its state; .demo by default")
    parser.add_argument("--size-mb", type=int, default=DATABASE_MEGABYTES, metavar="N", help="of the database's rows")
    options = parser.parse_args(arguments)
    console = Console(highlight=False)
    # Wide enough for a row on one line, also where the output is no terminal.
    console.width = max(console.width, WIDTH)
    # SIGTERM ends the demo as Ctrl-C does: in order.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with state_folder(options.directory.resolve(), options.size_mb) as state:
            return _run(console, state, is_once=options.once, size_megabytes=options.size_mb)
    except (DeploymentError, ServerStartError) as failure:
        console.print(f"[red bold]The demo failed.[/] {_escaped(failure)}", soft_wrap=True)
        console.print(f"Logs and data are in {options.directory / 'run'} until the next demo.")
        return 1
    except (DemoError, ServerUnavailableError) as failure:
        console.print(f"[red bold]The demo cannot run.[/] {_escaped(failure)}", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("Stopped.")
        return 130


def _run(console: Console, state: Path, *, is_once: bool, size_megabytes: int) -> int:
    began_at = time.monotonic()

    def say(sentence: str) -> None:
        console.print(f"[dim]{time.monotonic() - began_at:6.1f} s[/]  {_escaped(sentence)}")

    database = DatabaseApp("shop.db", server_settings=SERVER_SETTINGS)
    cache = CacheApp("shop.cache")
    objects = ObjectStoreApp("shop.objects")
    volume = VolumeApp("shop.files")
    apps = [database, cache, objects, volume]
    demo_file = state / "demo.json"
    with Deployment(state / "run", apps, say=say) as deployment, _removed_at_end(demo_file):
        write_demo_file(demo_file, deployment)
        exports = state / "run" / "exports"
        exports.mkdir()
        story = Story(deployment, exports, say)
        subjects: list[tuple[Subject, int]] = [
            (Database(database), size_megabytes),
            (Cache(cache), size_megabytes // CACHE_SHARE),
            (Objects(objects), size_megabytes // OBJECTS_SHARE),
            (Volume(volume), size_megabytes // VOLUME_SHARE),
        ]
        for subject, megabytes in subjects:
            story.tell(subject, size_megabytes=megabytes)
        print_results(console, story)
        if not story.is_good:
            console.print("[red bold]Content differs: see the table.[/]")
            return 1
        console.print(f"[green]All content was equal.[/] {time.monotonic() - began_at:.0f} s in all.")
        if not is_once:
            print_addresses(console, deployment, demo_file=demo_file)
            _wait_for_interrupt(demo_file, deployment)
    return 0


def _wait_for_interrupt(demo_file: Path, deployment: Deployment) -> None:
    """Keep the demo's file right until Ctrl-C or SIGTERM."""
    written = None
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            found = deployment.to_json()
            if found != written:
                write_demo_file(demo_file, deployment)
                written = found
            time.sleep(LOOK_SECONDS)


@contextmanager
def state_folder(state: Path, size_megabytes: int) -> Iterator[Path]:
    """The folder, ours alone, without what an earlier demo left; emptied afterwards unless a step fails.

    Raises:
        DemoError: another demo runs here, or there is not enough room.
    """
    state.mkdir(exist_ok=True)
    with (state / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DemoError(f"Another demo runs here; {state / 'demo.json'} says how to reach it.") from None
        (state / "demo.json").unlink(missing_ok=True)
        shutil.rmtree(state / "run", ignore_errors=True)
        free = shutil.disk_usage(state).free
        wanted = size_megabytes * 1_000_000 * DISK_FACTOR
        if free < wanted:
            raise DemoError(
                f"{state} has room for {free / 1e9:.1f} GB; {wanted / 1e9:.1f} GB are needed. Use a smaller --size-mb."
            )
        is_wanted = False
        try:
            yield state
        except (DeploymentError, ServerStartError):
            is_wanted = True
            raise
        finally:
            if not is_wanted:
                shutil.rmtree(state / "run", ignore_errors=True)


@contextmanager
def _removed_at_end(path: Path) -> Iterator[None]:
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _escaped(text: object) -> str:
    return str(text).replace("[", r"\[")


if __name__ == "__main__":
    sys.exit(main())
