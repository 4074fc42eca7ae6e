"""A server of millions of keys: out against `redis-cli --rdb`; in, under clients, against the server's own load."""

from __future__ import annotations

import re
import shutil
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from benchmarks.programs import curl, shell
from benchmarks.rows import Row, less_than, medians, ratio_at_most, seconds_of
from tools.deployment import CacheApp, Deployment
from tools.servers import RedisServer, redis
from tools.servers.directories import short_directory

_KEYS_AT_ONCE = 50_000
_FILL = """
for n = ARGV[1], ARGV[2] do
  local text = redis.sha1hex(n)
  redis.call('SET', 'key:' .. n, text)
end
"""
_LOADED = re.compile(r"DB loaded from disk: ([0-9.]+) seconds")


@dataclass
class _Client:
    """One that never rests.

    Attributes:
        longest_seconds: between two answers.
    """

    url: str
    do: Callable[[Redis], object]
    longest_seconds: float = 0.0
    errors: list[str] = field(default_factory=list)

    def run(self, stop: threading.Event) -> None:
        # A client that gives up, or tries again by itself, would hide what is measured.
        with Redis.from_url(self.url, socket_timeout=None, retry=Retry(NoBackoff(), 0)) as client:
            client.ping()
            before = time.perf_counter()
            while not stop.is_set():
                try:
                    self.do(client)
                except RedisError as failure:
                    self.errors.append(str(failure))
                now = time.perf_counter()
                self.longest_seconds = max(self.longest_seconds, now - before)
                before = now


class RedisBenchmark:
    """One app's server, and the programs of its makers."""

    def __init__(self, deployment: Deployment, app: CacheApp, folder: Path, *, keys: int) -> None:
        """
        Args:
            folder: for archives.
        """
        self._deployment = deployment
        self._app = app
        self._folder = folder
        self._keys = keys
        self._file = folder / "ours.rdb"

    def fill(self) -> None:
        """Short strings, which no server compresses: the most keys for each byte."""
        with Redis.from_url(self._app.url) as client:
            # Otherwise redis-cli waits for it; an export of ours sets it for as long as it takes to begin.
            client.config_set("repl-diskless-sync-delay", "0")
            fill = client.register_script(_FILL)
            for start in range(0, self._keys, _KEYS_AT_ONCE):
                fill(args=[start, min(start + _KEYS_AT_ONCE, self._keys) - 1])

    def export_rows(self, *, rounds: int, say: Callable[[str], None]) -> list[Row]:
        """Through agent, controller and HTTP to a file."""
        server = self._app.server
        cli = redis("redis-7.0").server.with_name("redis-cli")
        theirs = f"{cli} -h {server.host} -p {server.port} --rdb {self._folder}/theirs.rdb"
        found = medians(
            {
                "export": lambda: self._export("no"),
                "redis-cli --rdb": lambda: seconds_of(
                    lambda: shell(theirs, environment={"REDISCLI_AUTH": server.password})
                ),
                "export with a fingerprint": lambda: self._export("yes"),
            },
            rounds=rounds,
            say=say,
        )
        (self._folder / "theirs.rdb").unlink()
        ours, reference, with_fingerprint = found.values()
        return [
            Row("redis export against redis-cli --rdb", ours, "s", ratio_at_most(1.1), reference),
            Row("redis export with against without fingerprint", with_fingerprint, "s", ratio_at_most(1.15), ours),
        ]

    def import_rows(self, *, rounds: int, say: Callable[[str], None]) -> list[Row]:
        """What writers and readers see of an import of as many keys as are there."""
        pauses, gaps, gaps_at_rest, loads = [], [], [], []
        errors = 0
        for number in range(rounds):
            loads.append(self._own_load_seconds())
            with self._clients() as (writer, reader):
                seconds = seconds_of(self._import)
            with self._clients() as (_, reader_at_rest):
                time.sleep(seconds)
            gaps_at_rest.append(reader_at_rest.longest_seconds)
            pauses.append(writer.longest_seconds)
            gaps.append(reader.longest_seconds)
            told = [*writer.errors, *reader.errors]
            errors += len(told)
            say(
                f"round {number + 1} of {rounds}: writers waited {pauses[-1]:.2f} s, readers {gaps[-1] * 1000:.0f} ms "
                f"({gaps_at_rest[-1] * 1000:.0f} in {seconds:.0f} s without an import); "
                f"the server's own load took {loads[-1]:.2f} s"
                f"{'; an error: ' + told[0] if told else ''}"
            )
        pause, load = statistics.median(pauses), statistics.median(loads)
        return [
            Row("redis writers wait in an import against own load", pause, "s", ratio_at_most(1.3), load),
            Row(
                "redis readers wait in an import against at rest",
                statistics.median(gaps) * 1000,
                "ms",
                less_than(100),
                statistics.median(gaps_at_rest) * 1000,
            ),
            Row("redis errors that clients saw", errors, "errors", less_than(1)),
        ]

    def _export(self, fingerprint: str) -> float:
        route = f"/api/deployments/{self._app.app_id}/export-data?fingerprint={fingerprint}"
        return seconds_of(lambda: curl(self._deployment, route, "--output", self._file))

    def _import(self) -> None:
        route = f"/api/deployments/{self._app.app_id}"
        body = ("--header", "Content-Type: application/octet-stream", "--upload-file", self._file)
        curl(self._deployment, f"{route}/import-data", *body)
        curl(self._deployment, f"{route}/confirm-import")

    @contextmanager
    def _clients(self) -> Iterator[tuple[_Client, _Client]]:
        """A writer and a reader, as long as the block lasts."""
        stop = threading.Event()
        writer = _Client(self._app.url, lambda client: client.incr("writes"))
        reader = _Client(self._app.url, lambda client: client.get("key:77"))
        threads = [threading.Thread(target=client.run, args=[stop], daemon=True) for client in (writer, reader)]
        for thread in threads:
            thread.start()
        try:
            yield writer, reader
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def _own_load_seconds(self) -> float:
        """What a server of the same release says of starting on this file."""
        # Not in the folder for archives: as root, the server runs as a user who may not be able to enter that.
        with (
            short_directory("own-load") as folder,
            RedisServer(self._app.server.install, directory=folder / "server") as server,
        ):
            server.stop()
            shutil.copy(self._file, folder / "server" / "dump.rdb")
            server.start()
            said = _LOADED.findall(server.log())
        return float(said[-1])
