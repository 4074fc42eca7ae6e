"""The deployed product as acceptance tests use it, and what must be the same before and after a failure."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg

from agent.engines.pg.exports.fingerprint import Fingerprint, fingerprint
from agent.engines.pg.server.connection import Login, connect
from common.seals import RESERVED_DIRECTORY
from tools.demo.ledger import read_ledger
from tools.demo.tree_fingerprint import TreeFingerprint, tree_fingerprint
from tools.demo.volume_content import is_left_alone
from tools.deployment import DatabaseApp, Deployment, VolumeApp
from tools.deployment.memory import descendants, program_of

DATABASE_ID = "shop.db"
VOLUME_ID = "shop.files"
SETTLE_SECONDS = 20.0
"""How long after a failure things may still be going away; what is left then is left over."""
ANSWER_SECONDS = 120.0
PIECE_BYTES = 64 << 10
BROKEN = (http.client.HTTPException, ConnectionError)
"""What a client of Python's meets when the other side is gone."""

Content = Fingerprint | TreeFingerprint


def wait_until(is_met: Callable[[], bool], what: str, *, seconds: float = SETTLE_SECONDS) -> None:
    """Look again and again; AssertionError when it never came."""
    deadline = time.monotonic() + seconds
    while not is_met():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.01)


@dataclass(frozen=True)
class Traces:
    """What a transfer leaves behind if it is not cleaned up."""

    databases: tuple[str, ...]
    roles: tuple[str, ...]
    sessions: int
    files: tuple[str, ...]
    processes: tuple[str, ...]
    agent_descriptors: int
    controller_descriptors: int


@dataclass(frozen=True)
class Answer:
    """A whole HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


class Export:
    """An export whose body is taken as slowly as a test likes; everything before it is held up meanwhile."""

    def __init__(self, answer: http.client.HTTPResponse, connection: http.client.HTTPConnection, id: str) -> None:
        self.transfer_id = id
        self.received = bytearray()
        self._answer = answer
        self._connection = connection

    def read(self, size_bytes: int) -> None:
        """Take that much more."""
        while size_bytes > 0:
            piece = self._answer.read(min(PIECE_BYTES, size_bytes))
            assert piece, f"the export ended after {len(self.received)} bytes"
            self.received += piece
            size_bytes -= len(piece)

    def read_rest(self) -> None:
        """Take everything to the end; http.client.IncompleteRead or ConnectionError when the body is cut."""
        while piece := self._answer.read(PIECE_BYTES):
            self.received += piece

    def abandon(self) -> None:
        """Go away as a killed client does: its sockets are closed."""
        self._answer.close()
        self._connection.close()


class World:
    """One deployment with a PostgreSQL app and a volume app, both filled."""

    def __init__(self, deployment: Deployment, database: DatabaseApp, volume: VolumeApp, folder: Path) -> None:
        self.deployment = deployment
        self.database = database
        self.volume = volume
        self.folder = folder
        """For archives and such."""

    # Calling the REST API ---------------------------------------------------------------------------------------------

    def ask(self, method: str, path: str) -> Answer:
        """A request without a body."""
        with self._connection() as connection:
            connection.request(method, path, headers=self._headers())
            return _read(connection.getresponse())

    @contextmanager
    def exporting(self, app_id: str, *, format: str = "") -> Iterator[Export]:
        """An export that has begun; abandoned at the end of the block."""
        transfer_id = f"x-{secrets.token_hex(6)}"
        query = f"?format={format}" if format else ""
        with self._connection() as connection:
            connection.connect()
            # Little is on the way to a client that does not read, so that the other end is held up soon.
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, PIECE_BYTES)
            headers = {**self._headers(), "Mathison-Transfer": transfer_id}
            connection.request("POST", f"/api/deployments/{app_id}/export-data{query}", headers=headers)
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            export = Export(answer, connection, transfer_id)
            try:
                yield export
            finally:
                export.abandon()

    def export(self, app_id: str, *, format: str = "") -> Path:
        """A whole export in a file, its SHA-256 checked against what the transfer's state says."""
        target = self.folder / f"{app_id}-{secrets.token_hex(4)}{'.' + format if format else ''}"
        with self.exporting(app_id, format=format) as export:
            try:
                export.read_rest()
            except BROKEN as broken:
                state = self.transfer(export.transfer_id)
                raise AssertionError(f"the export of {app_id} broke: {state}") from broken
            target.write_bytes(export.received)
            state = self.transfer(export.transfer_id)
            assert state["result"] == "succeeded", state
            assert state["end"]["sha256"] == _sha256(export.received)
        return target

    @contextmanager
    def uploading(
        self, app_id: str, archive: Path, *, is_dry_run: bool = False, transfer_id: str = ""
    ) -> Iterator[Upload]:
        """An import whose body is sent piece by piece; abandoned at the end of the block.

        Args:
            transfer_id: empty: one that was never used.
        """
        transfer_id = transfer_id or f"i-{secrets.token_hex(6)}"
        upload = Upload(self, app_id, archive, is_dry_run=is_dry_run, transfer_id=transfer_id)
        try:
            yield upload
        finally:
            upload.abandon()

    def import_(self, app_id: str, archive: Path, *, is_dry_run: bool = False, transfer_id: str = "") -> Answer:
        """A whole import."""
        with self.uploading(app_id, archive, is_dry_run=is_dry_run, transfer_id=transfer_id) as upload:
            upload.send_rest()
            return upload.answer()

    def replace(self, app_id: str, archive: Path) -> None:
        """A whole import, and nothing kept for an undo."""
        answer = self.import_(app_id, archive)
        assert answer.status == 200, answer.body
        assert self.ask("POST", f"/api/deployments/{app_id}/confirm-import").status == 200

    def transfer(self, transfer_id: str) -> dict[str, Any]:
        """A transfer's state."""
        return self.ask("GET", f"/api/transfers/{transfer_id}").json()

    def curl(self, path: str, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
        """The real program; its exit status is for the caller to look at."""
        return subprocess.run(
            self.curl_command(path, *arguments), capture_output=True, timeout=ANSWER_SECONDS, check=False
        )

    def curl_command(self, path: str, *arguments: str | Path) -> list[str]:
        """The token comes from a file: argv is there for others to list."""
        options = [
            "--silent",
            "--show-error",
            "--fail",
            "--noproxy",
            "*",
            "--header",
            f"@{self.deployment.header_path}",
        ]
        return ["curl", *options, "--request", "POST", *map(str, arguments), f"{self.deployment.rest}{path}"]

    @contextmanager
    def _connection(self) -> Iterator[http.client.HTTPConnection]:
        connection = self.new_connection()
        with contextlib.closing(connection):
            yield connection

    def new_connection(self) -> http.client.HTTPConnection:
        """Not opened yet."""
        address = urlsplit(self.deployment.rest)
        assert address.hostname is not None
        return http.client.HTTPConnection(address.hostname, address.port, timeout=ANSWER_SECONDS)

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.deployment.token}"}

    # Looking at data and traces ---------------------------------------------------------------------------------------

    def content(self, app_id: str) -> Content:
        """What the app holds; of the volume what its program leaves alone, the rest checked by its invariants."""
        if app_id == VOLUME_ID:
            assert read_ledger(self.volume.directory).faults == ()
            return tree_fingerprint(self.volume.directory, is_wanted=_is_still)
        return self.content_of_database(self.database.database)

    def content_of_database(self, name: str) -> Fingerprint:
        """Of any database of the app's server."""
        server = self.database.server
        login = Login(server.host, server.port, name, server.superuser, server.password)

        async def look() -> Fingerprint:
            async with connect(login) as connection:
                return await fingerprint(connection)

        return asyncio.run(look())

    def traces(self, app_id: str) -> Traces:
        """What there is now."""
        site = self.deployment[app_id]
        with psycopg.connect(self.database.server.dsn()) as connection:
            databases = connection.execute("SELECT datname FROM pg_database ORDER BY 1").fetchall()
            roles = connection.execute("SELECT rolname FROM pg_roles ORDER BY 1").fetchall()
            sessions = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'mathison%'"
            ).fetchone()
        folders = (site.state_directory / "work", site.state_directory / "journal")
        files = [str(path) for folder in folders for path in folder.rglob("*") if path.is_file()]
        reserved = self.volume.directory / RESERVED_DIRECTORY
        files += [str(path) for path in reserved.rglob("*") if not path.is_dir()]
        return Traces(
            databases=tuple(name for (name,) in databases),
            roles=tuple(name for (name,) in roles),
            sessions=sessions[0] if sessions else 0,
            files=tuple(sorted(files)),
            processes=tuple(sorted(program_of(pid) for pid in descendants(site.agent.pid))),
            agent_descriptors=_files_and_pipes(site.agent.pid),
            controller_descriptors=_files_and_pipes(self.deployment.controller.pid),
        )

    def wait_until_as_before(self, app_id: str, before: Traces) -> None:
        """Nothing is left over; AssertionError naming what is."""
        # What there was before may have been of a transfer that had just ended.
        before = replace(before, sessions=0)
        deadline = time.monotonic() + SETTLE_SECONDS
        while (now := self.traces(app_id)) != before and time.monotonic() < deadline:
            time.sleep(0.05)
        differs = {
            name: (value, getattr(now, name)) for name, value in asdict(before).items() if value != getattr(now, name)
        }
        assert differs == {}, f"before and now: {differs}"

    # Breaking things --------------------------------------------------------------------------------------------------

    def child(self, app_id: str, *programs: str) -> int:
        """The process of a program that the agent has started, once it is there."""
        found: list[int] = []

        def look() -> bool:
            found[:] = [pid for pid in descendants(self.deployment[app_id].agent.pid) if program_of(pid) in programs]
            return bool(found)

        wait_until(look, f"the agent of {app_id} has started one of {', '.join(programs)}")
        return found[0]

    def kill(self, app_id: str, victim: str) -> None:
        """kill -9 of "agent", "controller" or a program that the agent has started."""
        if victim == "agent":
            self.deployment[app_id].agent.kill()
        elif victim == "controller":
            self.deployment.controller.kill()
        else:
            os.kill(self.child(app_id, victim), signal.SIGKILL)

    def repair(self, app_id: str) -> None:
        """Start again what does not run, as an operator or Kubernetes does."""
        if not self.deployment.controller.is_running:
            self.deployment.start_controller()
        if not self.deployment[app_id].agent.is_running:
            self.deployment.start_agent(app_id)
        self.deployment.wait_for_agent(app_id)


class Upload:
    """An import in pieces."""

    def __init__(self, world: World, app_id: str, archive: Path, *, is_dry_run: bool, transfer_id: str) -> None:
        self.transfer_id = transfer_id
        self.size_bytes = archive.stat().st_size
        self._file = archive.open("rb")
        self._connection = world.new_connection()
        query = "?dry_run=true" if is_dry_run else ""
        self._connection.putrequest("POST", f"/api/deployments/{app_id}/import-data{query}")
        for name, value in (
            ("Authorization", f"Bearer {world.deployment.token}"),
            ("Mathison-Transfer", self.transfer_id),
            ("Content-Type", "application/octet-stream"),
            ("Content-Length", str(self.size_bytes)),
        ):
            self._connection.putheader(name, value)
        self._connection.endheaders()

    def send(self, size_bytes: int) -> None:
        """Send that much more."""
        while size_bytes > 0 and (piece := self._file.read(min(PIECE_BYTES, size_bytes))):
            self._connection.send(piece)
            size_bytes -= len(piece)

    def send_rest(self) -> None:
        """Send everything; the other side may have answered already and closed, which `answer` will show."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.send(self.size_bytes)

    def answer(self) -> Answer:
        """The answer, which comes when the import is over; http.client or connection errors when it does not."""
        return _read(self._connection.getresponse())

    def say_no_more(self) -> None:
        """Close one direction only, as a client that was cut short and still listens."""
        self._connection.sock.shutdown(socket.SHUT_WR)

    def abandon(self) -> None:
        """Go away as a killed client does."""
        self._file.close()
        self._connection.close()


def _read(answer: http.client.HTTPResponse) -> Answer:
    return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())


def _sha256(content: bytes | bytearray) -> str:
    return hashlib.sha256(content).hexdigest()


def _is_still(path: str) -> bool:
    return is_left_alone(path) and path != RESERVED_DIRECTORY


def _files_and_pipes(pid: int) -> int:
    """Open descriptors of a process without its sockets, of which gRPC keeps some for later."""
    count = 0
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                target = os.readlink(entry.path)
                count += target.startswith(("/", "pipe:"))
    return count
