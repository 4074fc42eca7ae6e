"""Bytes through the controller alone, from an agent that has them ready, against sendfile to curl; the first byte."""

from __future__ import annotations

import http.client
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.fake_agent import RelayedApp
from benchmarks.programs import curl, shell
from benchmarks.rows import Row, at_least, less_than, medians, ratio_at_least, seconds_of
from tools.deployment import Deployment

MEGABYTE = 1_000_000
FIRST_BYTE_TRIES = 7


def relay_rows(
    deployment: Deployment, app: RelayedApp, folder: Path, *, rounds: int, say: Callable[[str], None]
) -> list[Row]:
    """Both to /dev/null."""
    route = f"/api/deployments/{app.app_id}/export-data"
    file = folder / "served.bin"
    with file.open("wb") as made:
        for start in range(0, app.size_bytes, 1 << 20):
            made.write(os.urandom(min(1 << 20, app.size_bytes - start)))
    with _sendfile_server(file) as url:
        found = medians(
            {
                "relay": lambda: seconds_of(lambda: curl(deployment, route, "--output", "/dev/null")),
                "sendfile": lambda: seconds_of(lambda: shell(f"curl -sf --noproxy '*' -o /dev/null {url}")),
            },
            rounds=rounds,
            say=say,
        )
    file.unlink()
    relay, sendfile = (app.size_bytes / MEGABYTE / seconds for seconds in found.values())
    return [
        Row("relay through the controller", relay, "MB/s", at_least(500)),
        Row("relay against sendfile to curl", relay, "MB/s", ratio_at_least(0.4), sendfile),
    ]


def first_byte_row(deployment: Deployment, app_id: str, what: str) -> Row:
    """From the request to the first byte of the archive."""
    tries = [_first_byte_seconds(deployment, app_id) for _ in range(FIRST_BYTE_TRIES)]
    return Row(f"first byte of an export, {what}", statistics.median(tries) * 1000, "ms", less_than(300))


def _first_byte_seconds(deployment: Deployment, app_id: str) -> float:
    address = urlsplit(deployment.rest)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
    try:
        began_at = time.perf_counter()
        headers = {"Authorization": f"Bearer {deployment.token}"}
        connection.request("POST", f"/api/deployments/{app_id}/export-data", headers=headers)
        answer = connection.getresponse()
        if answer.status != 200 or not answer.read(1):
            raise RuntimeError(f"the export of {app_id} was answered with {answer.status}: {answer.read()!r}")
        return time.perf_counter() - began_at
    finally:
        connection.close()
        _wait_until_idle(deployment, app_id)


def _wait_until_idle(deployment: Deployment, app_id: str) -> None:
    """The export that was left is over; otherwise the next one would be refused."""
    deadline = time.monotonic() + 20
    while deployment.describe(app_id).description.HasField("running"):
        if time.monotonic() > deadline:
            raise RuntimeError(f"the export of {app_id} goes on though its caller has gone")
        time.sleep(0.02)


@contextmanager
def _sendfile_server(file: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.sendfile_server", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield f"http://127.0.0.1:{server.stdout.readline().strip()}/"
        finally:
            server.kill()
