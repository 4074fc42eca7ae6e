"""What of a MinIO matters to an exchange: a drive, what the server has in memory of it, and being frozen.

Bucket directories are looked at anew for each call; users and the settings of buckets are in memory. Content is the
text of a file named `of` in each directory.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from agent.engines.minio.drive.layout import BUCKETS, CONFIG, is_bucket_name
from agent.engines.minio.server.client import Answer, NotReadyError, RefusedError
from agent.engines.minio.server.signing import Account
from common.errors import AppUnavailableError

DEPLOYMENT = "the-deployment"
_NO_RULES = b"<NotificationConfiguration></NotificationConfiguration>"


class FakeMinio:
    """A server, and the client that calls it.

    Attributes:
        freezes: more than none: S3 calls are held.
        restarts: so far.
        before_change: called before each call that changes the server or the drive.
        stacks: what its goroutines do.
        while_loading: called once a start, when it is first asked whether it has loaded its buckets; then it has not.
    """

    def __init__(self, drive: Path) -> None:
        self.account = Account("http://fake", "root", "password")
        self.freezes = 0
        self.restarts = 0
        self.before_change: Callable[[], None] = lambda: None
        self.stacks: Callable[[], str] = lambda: ""
        self.while_loading: Callable[[], None] | None = None
        self._drive = drive
        self._settings: dict[str, str] = {}
        self._users = ""
        self._uptime = 10_000
        self.start()

    def start(self) -> None:
        """Read everything; a bucket whose settings are there gets its directory."""
        self.freezes = 0
        self._is_loaded = False
        self._users = _text(self._drive / CONFIG)
        self._settings = {}
        for path in (self._drive / BUCKETS).glob("*"):
            (self._drive / path.name).mkdir(exist_ok=True)
            self._settings[path.name] = _text(path)

    def seen(self) -> dict[str, str]:
        """What clients meet: of each bucket the content and the settings, and the users."""
        there = sorted(path.name for path in self._drive.iterdir() if path.is_dir() and is_bucket_name(path.name))
        found = {name: f"{_text(self._drive / name)}, {self._settings.get(name, 'not known')}" for name in there}
        return found | {"users": self._users}

    @asynccontextmanager
    async def frozen(self, *_: object, **__: object) -> AsyncIterator[FakeFreeze]:
        """As `freezing.frozen`: it ends whatever becomes of the block."""
        self.freezes += 1
        try:
            yield FakeFreeze()
        finally:
            self.freezes = 0

    async def admin(
        self, method: str, name: str, *, query: Mapping[str, str] | None = None, body: bytes = b"", seconds: float = 0
    ) -> Answer:
        match method, name:
            case "GET", "info":
                drives = [{"path": str(self._drive)}]
                # Young once after each restart, so that nobody waits to see that it was one.
                uptime, self._uptime = self._uptime, 10_000
                servers = [{"version": "1", "uptime": uptime, "drives": drives}]
                return _answer(json.dumps({"deploymentID": DEPLOYMENT, "servers": servers}).encode())
            case "POST", "kms/status":
                raise RefusedError("a call", status=501, s3_code="NotImplemented", message="")
            case "POST", "service" if (query or {})["action"] == "restart":
                assert self.freezes == 0, "a frozen server is never restarted"
                self.before_change()
                self.restarts += 1
                self._uptime = 0
                self.start()
            case "POST", "service" if (query or {})["action"] == "unfreeze":
                self.freezes = max(self.freezes - 1, 0)
            case "POST", "profile":
                return _answer(_zip({"profile-fake-goroutines.txt": self.stacks()}))
        return _answer(b"{}")

    async def call(
        self,
        method: str,
        bucket: str = "",
        key: str = "",
        *,
        path: str = "",
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        seconds: float = 0,
    ) -> Answer:
        if self.freezes and not headers:
            raise AppUnavailableError("held") from TimeoutError()
        if path == "/minio/health/cluster/read" and self.while_loading and not self._is_loaded:
            self._is_loaded = True
            self.while_loading()
            raise NotReadyError("a call", lacks="bucket-metadata-offline", said="")
        if bucket and method == "PUT" and not query:
            self.before_change()
            for directory in (self._drive / bucket, self._drive / BUCKETS / bucket):
                directory.mkdir(exist_ok=True)
            self._settings[bucket] = ""
        elif bucket and method == "PUT" and query == {"notification": ""}:
            self.before_change()
            self._settings[bucket] = _text(self._drive / BUCKETS / bucket)
        elif bucket and method == "DELETE":
            self.before_change()
            (self._drive / bucket).rmdir()
            (self._drive / BUCKETS / bucket).rmdir()
            del self._settings[bucket]
        return _answer(_NO_RULES if "notification" in (query or {}) else b"<x/>")


class FakeFreeze:
    """Of no length."""

    seconds = 0.0

    def is_on(self) -> bool:
        return True


def _text(directory: Path) -> str:
    file = directory / "of"
    return file.read_text() if file.exists() else "empty"


def _zip(files: Mapping[str, str]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return file.getvalue()


def _answer(body: bytes) -> Answer:
    return Answer(200, {"Server": "MinIO"}, body)
