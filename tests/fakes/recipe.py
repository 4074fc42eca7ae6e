"""A recipe whose app is one file, and whose every step a test can stop, fail or watch.

Steps have names, for example "stage received" or "restore swapped". At each, the recipe
- leaves the file `reached <step>` in the app's directory,
- waits while the file `pause <step>` is there (for tests that meet it in another process),
- calls what the test put into `at` (for tests in its own).
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from agent.recipes.base import (
    Capability,
    Description,
    Export,
    ExportOptions,
    Format,
    ItemChanges,
    Preview,
    Progress,
    Recipe,
    Record,
    Recovered,
    Step,
    Surroundings,
    Upload,
)
from common.errors import ArchiveWrongKindError, ServiceError, ToolFailedError
from common.fingerprints import Fingerprint
from common.frames import CHUNK_BYTES
from common.headers import ArchiveHeader

PLAIN = Format("plain", "application/octet-stream", ".bin", "the file as it is")
SPARE = Format("spare", "application/octet-stream", ".spare", "another name for the same")


class FakeRecipe(Recipe):
    """The app is `<directory>/live`; staged and previous data lie beside it under names that hold the record's key.

    Settings: `directory`; `stream_bytes`, where not 0: an export makes up that many bytes, and a stage keeps none;
    `failure` and `fault`: what an export ends with.
    """

    name = "fake"
    data_export_description = "One file, whole."
    export_formats = (PLAIN, SPARE)
    import_formats = ("plain",)

    def __init__(self, surroundings: Surroundings) -> None:
        self.directory = Path(str(surroundings.settings["directory"]))
        self.stream_bytes = int(str(surroundings.settings.get("stream_bytes", 0)))
        self._failure = str(surroundings.settings.get("failure", ""))
        self._fault = str(surroundings.settings.get("fault", ""))
        self.chunk_bytes = CHUNK_BYTES
        self.at: dict[str, Callable[[], Any]] = {}
        self.counts_after = {"files": 1}
        self.running_exports = 0
        self.is_closed = False
        self.found_outside: ServiceError | None = None
        self.told: str | None = None

    @property
    def live(self) -> bytes:
        return (self.directory / "live").read_bytes()

    @property
    def beside(self) -> set[str]:
        """What lies beside the app's data."""
        return {path.name.split("-")[0] for path in self.directory.iterdir() if "-" in path.name}

    def has_reached(self, step: str) -> bool:
        return (self.directory / f"reached {step}").exists()

    async def _reach(self, step: str) -> None:
        (self.directory / f"reached {step}").touch()
        while (self.directory / f"pause {step}").exists():  # noqa: ASYNC110  # another process removes it
            await asyncio.sleep(0.005)
        if action := self.at.get(step):
            result = action()
            if inspect.isawaitable(result):
                await result

    async def describe(self) -> Description:
        await self._reach("describe")
        is_there = (self.directory / "live").exists()
        obstacle = Capability("" if is_there else "The file is gone.")
        return Description(engine="fake", engine_version="1", can_export=obstacle, import_needs_app_stop=True)

    @asynccontextmanager
    async def export_data(self, options: ExportOptions, progress: Progress) -> AsyncIterator[Export]:
        self.running_exports += 1
        try:
            await self._reach("export begun")
            if self._failure:
                raise ToolFailedError(self._failure)
            if self._fault:
                raise RuntimeError(self._fault)
            progress.expect(self.stream_bytes or len(self.live))
            export = Export(header=ArchiveHeader(engine="fake"), chunks=self._chunks(progress))
            export.counts["files"] = 1
            if not self.stream_bytes:
                export.fingerprint = _fingerprint_of(self.live)
            yield export
            await self._reach("export ended")
        finally:
            self.running_exports -= 1

    async def _chunks(self, progress: Progress) -> AsyncGenerator[bytes, None]:
        if self.stream_bytes:
            block = bytes(range(256)) * (self.chunk_bytes // 256)
            for number in range(self.stream_bytes // len(block)):
                # A fresh object each time, as a dump would give.
                chunk = number.to_bytes(8) + block[8:]
                progress.read(len(chunk))
                yield chunk
                await asyncio.sleep(0)
            return
        content = self.live
        for start in range(0, len(content), self.chunk_bytes):
            chunk = content[start : start + self.chunk_bytes]
            progress.read(len(chunk))
            yield chunk
            await self._reach("export chunk")

    async def stage(self, upload: Upload, record: Record, progress: Progress) -> Preview:
        await self._reach("stage begun")
        staged = self.directory / f"staged-{record.key}"
        record.save(staged=staged.name)
        progress.step(Step.TRANSFERRING, "receiving")
        size_bytes = 0
        with staged.open("wb") as file:
            async for chunk in upload.chunks:
                if chunk.startswith(b"BAD"):
                    raise ArchiveWrongKindError("The file is not what this app takes.")
                size_bytes += len(chunk)
                if not self.stream_bytes:
                    file.write(chunk)
                if chunk.endswith(b"STOP"):
                    break
                await self._reach("stage chunk")
        await self._reach("stage received")
        progress.step(Step.VERIFYING, "looking")
        return Preview(
            changes=(f"{size_bytes} bytes",),
            counts_now={"files": 1},
            counts_after=self.counts_after,
            items={"files": ItemChanges.between({"live": self.live}, {"live": b""})},
            room_bytes=size_bytes,
            swap_seconds=2.5,
        )

    async def restore(self, record: Record, progress: Progress) -> str | None:
        progress.step(Step.RESTORING, "swapping")
        await self._reach("restore begun")
        previous = f"previous-{record.key}"
        record.save(previous=previous)
        (self.directory / "live").rename(self.directory / previous)
        await self._reach("restore halfway")
        (self.directory / str(record.facts["staged"])).rename(self.directory / "live")
        await self._reach("restore swapped")
        return self.told

    async def undo(self, record: Record, progress: Progress) -> str | None:
        progress.step(Step.UNDOING, "swapping back")
        await self._reach("undo begun")
        (self.directory / str(record.facts["previous"])).rename(self.directory / "live")
        await self._reach("undo swapped")
        return self.told

    async def discard(self, record: Record) -> None:
        await self._reach("discard")
        for name in (record.facts.get("staged"), record.facts.get("previous")):
            if name is not None:
                (self.directory / str(name)).unlink(missing_ok=True)

    async def put_right(self, record: Record) -> ServiceError | None:
        await self._reach("put right")
        return self.found_outside

    async def recover(self, record: Record) -> Recovered:
        await self._reach("recover")
        previous = self.directory / str(record.facts.get("previous", "nothing"))
        if previous.exists() and (self.directory / "live").exists():
            return Recovered.IMPORTED
        if previous.exists():
            previous.rename(self.directory / "live")
        return Recovered.PREVIOUS

    async def fingerprint(self, progress: Progress) -> Fingerprint:
        await self._reach("fingerprint")
        return _fingerprint_of(self.live)

    async def close(self) -> None:
        self.is_closed = True


def _fingerprint_of(content: bytes) -> Fingerprint:
    return Fingerprint(scheme="fake/1", parts={"file": f"{len(content)} bytes, {hashlib.sha256(content).hexdigest()}"})
