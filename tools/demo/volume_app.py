"""A small app whose data is a folder: a busy SQLite database in WAL mode, and files that it rewrites all the time.

    volume_app.py start|stop|status|run --data FOLDER --runtime FOLDER

It moves amounts between wallets and reserves: in every committed state all balances together are TOTAL, and each
balance is what the recorded transfers make it, so a mixture of two moments shows. Its pid file, locked as long as it
runs, and its log are in the runtime folder, outside its data.

Run as a script by whoever has to stop and start it, so it imports the standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import random
import select
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

DATABASE = "ledger.sqlite"
LIVE_FOLDER = "live"
"""The files below it change all the time; everything else in the data folder is left alone."""
WALLETS = 200
RESERVES = 20
START_BALANCE = 10_000
TOTAL = (WALLETS + RESERVES) * START_BALANCE
LIVE_FILES = 8
BUSY_SECONDS = 30.0
"""How long a write waits for somebody else's lock, such as a backup's."""
START_SECONDS = 20.0
STOP_SECONDS = 20.0
READY = "ready"

SCHEMA = """
CREATE TABLE IF NOT EXISTS wallets (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS reserves (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS transfers (
    id INTEGER PRIMARY KEY AUTOINCREMENT, wallet INTEGER NOT NULL, reserve INTEGER NOT NULL, amount INTEGER NOT NULL,
    note TEXT NOT NULL
);
"""


class AppError(Exception):
    """The app cannot be started or stopped; the text says why."""


@dataclass(frozen=True)
class Places:
    """Where the app keeps what."""

    data: Path
    runtime: Path

    @property
    def database(self) -> Path:
        return self.data / DATABASE

    @property
    def pid_file(self) -> Path:
        return self.runtime / "app.pid"

    @property
    def log(self) -> Path:
        return self.runtime / "app.log"


# --------------------------------------------------------------------------------------------------------------------
# The app itself


def run(places: Places, *, until_pid: int | None, pause_seconds: float) -> None:
    """Write until SIGTERM comes or the process `until_pid` has ended."""
    with _held_pid_file(places) as say_ready, _lifetime(until_pid) as goes_on:
        (places.data / LIVE_FOLDER).mkdir(exist_ok=True)
        database = sqlite3.connect(places.database, timeout=BUSY_SECONDS, isolation_level=None)
        with closing(database):
            _make_schema(database)
            say_ready()
            choice = random.Random()  # noqa: S311 - nothing secret
            written = 0
            while goes_on(pause_seconds):
                _transfer(database, choice)
                written += 1
                if written % 10 == 0:
                    _rewrite_file(places.data / LIVE_FOLDER, written)


def _make_schema(database: sqlite3.Connection) -> None:
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    database.executescript(SCHEMA)
    database.execute("BEGIN IMMEDIATE")
    if not database.execute("SELECT count(*) FROM wallets").fetchone()[0]:
        for table, count in (("wallets", WALLETS), ("reserves", RESERVES)):
            rows = [(number, START_BALANCE) for number in range(1, count + 1)]
            database.executemany(f"INSERT INTO {table} VALUES (?, ?)", rows)  # noqa: S608 - our own names
    database.execute("COMMIT")


def _transfer(database: sqlite3.Connection, choice: random.Random) -> None:
    wallet, reserve = choice.randint(1, WALLETS), choice.randint(1, RESERVES)
    amount, note = choice.randint(-500, 500), choice.randbytes(100).hex()
    database.execute("BEGIN IMMEDIATE")
    database.execute("UPDATE wallets SET balance = balance - ? WHERE id = ?", (amount, wallet))
    database.execute("UPDATE reserves SET balance = balance + ? WHERE id = ?", (amount, reserve))
    database.execute(
        "INSERT INTO transfers (wallet, reserve, amount, note) VALUES (?, ?, ?, ?)", (wallet, reserve, amount, note)
    )
    database.execute("COMMIT")


def _rewrite_file(folder: Path, written: int) -> None:
    """Under another name, then renamed, as careful apps do."""
    name = f"counter-{written // 10 % LIVE_FILES}.json"
    making = folder / f".{name}.new"
    making.write_text(json.dumps({"written": written, "at": time.time()}) + "\n")
    making.rename(folder / name)


@contextmanager
def _held_pid_file(places: Places) -> Iterator[Callable[[], None]]:
    """The pid file, locked; yields the function that says in it that the app is ready.

    Raises:
        AppError: another one runs.
    """
    with places.pid_file.open("a+") as file:
        deadline = time.monotonic() + 2.0
        while not _try_lock(file.fileno()):
            # A moment's lock is someone who looks whether we run.
            if time.monotonic() > deadline:
                raise AppError(f"the app of {places.data} runs already")
            time.sleep(0.01)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()

        def say_ready() -> None:
            file.write(f"{READY}\n")
            file.flush()

        yield say_ready
        file.truncate(0)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _lifetime(until_pid: int | None) -> Iterator[Callable[[float], bool]]:
    """Yields a function that waits for a time and says whether to go on; SIGTERM and SIGINT end the wait at once."""
    woken, waker = os.pipe()
    poll = select.poll()
    poll.register(woken, select.POLLIN)
    # Looked at after each wait: no pidfd_open in Pythons that were built for old systems, uv's among them.
    began_at = None if until_pid is None else _began_at(until_pid)

    def wake(number: int, frame: object) -> None:
        os.write(waker, b"!")

    signal.signal(signal.SIGTERM, wake)
    signal.signal(signal.SIGINT, wake)
    yield (
        lambda seconds: not poll.poll(seconds * 1000) and (until_pid is None or _began_at(until_pid) == began_at != "")
    )


def _began_at(pid: int) -> str:
    """When a process was started, in the kernel's ticks; empty once it has ended."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if words[0] == "Z" else words[19]


# --------------------------------------------------------------------------------------------------------------------
# Starting and stopping it


def running_pid(places: Places) -> int | None:
    """The app's process, ready or not yet; None when it does not run."""
    try:
        with places.pid_file.open() as file:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return None
            words = file.read().split()
    except FileNotFoundError:
        return None
    return int(words[0]) if words else 0


def _is_ready(places: Places) -> bool:
    return running_pid(places) is not None and READY in places.pid_file.read_text()


def start(places: Places, *, until_pid: int | None, pause_seconds: float) -> None:
    """Returns once the app has opened its database. Starting a running app is fine.

    Raises:
        AppError: it ended or did not become ready; with the last words of its log.
    """
    if running_pid(places) is not None:
        return
    command = [sys.executable, os.path.abspath(__file__), "run", f"--data={places.data}", f"--runtime={places.runtime}"]
    command += [f"--pause={pause_seconds}"] + ([] if until_pid is None else [f"--until-pid={until_pid}"])
    with places.log.open("ab") as log:
        app = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True
        )
    deadline = time.monotonic() + START_SECONDS
    while not _is_ready(places):
        if app.poll() is not None or time.monotonic() > deadline:
            app.kill()
            raise AppError(f"the app did not start: {places.log.read_text()[-1000:].strip()}")
        time.sleep(0.02)
    app.returncode = 0  # It lives on without us: no warning about a child that was not waited for.


def stop(places: Places) -> None:
    """Returns once the app has ended, by SIGTERM or, when it takes too long, by SIGKILL. A stopped app is fine."""
    deadline = time.monotonic() + STOP_SECONDS
    signalled: signal.Signals | None = None
    while (pid := running_pid(places)) is not None:
        wanted = signal.SIGKILL if time.monotonic() > deadline else signal.SIGTERM
        if pid and wanted is not signalled:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, wanted)
            signalled = wanted
        if time.monotonic() > deadline + STOP_SECONDS:
            raise AppError(f"process {pid} does not end")
        time.sleep(0.02)


def main() -> int:
    """Exit status 0: done; 1: not, and why is on standard error. `status` exits with 1 when the app does not run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["start", "stop", "status", "run"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runtime", type=Path, required=True)
    parser.add_argument("--until-pid", type=int, help="end when this process has ended")
    parser.add_argument("--pause", type=float, default=0.005, metavar="SECONDS", help="between two writes")
    options = parser.parse_args()
    places = Places(options.data, options.runtime)
    try:
        if options.action == "run":
            run(places, until_pid=options.until_pid, pause_seconds=options.pause)
        elif options.action == "start":
            start(places, until_pid=options.until_pid, pause_seconds=options.pause)
        elif options.action == "stop":
            stop(places)
        else:
            pid = running_pid(places)
            print("does not run" if pid is None else f"runs as process {pid}")
            return int(pid is None)
    except (AppError, OSError, sqlite3.Error) as failure:
        print(f"volume app: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
