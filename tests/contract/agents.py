"""The agent's core over an app under test, with a journal on disk, as the program puts it together."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

from agent.app_control import make_app_control
from agent.clock import SystemClock
from agent.history import History
from agent.journal import Journal
from agent.recipes.base import Limits, Recipe, Surroundings
from agent.settings import AppSettings
from agent.states import TransferState
from agent.transfers import TransferRules, Transfers
from common.frames import FrameReceiver
from common.headers import Receipt
from mathison.data.v1 import transfer_pb2 as wire
from tests.contract.app import AppUnderTest, Archive, Fill
from tests.fixtures.uploads import frames

APP_ID = "shop.app"
LIMIT_BYTES = 1 << 30
RULES = TransferRules(
    limits=Limits(archive_bytes=LIMIT_BYTES, free_bytes=1),
    keep_previous=dt.timedelta(hours=72),
    keep_staged=dt.timedelta(hours=1),
    idle_seconds=60,
    event_gap_seconds=0,
)


@dataclass(frozen=True)
class Launch:
    """What an agent is started with; can be sent to another process."""

    recipe: type[Recipe]
    settings: dict[str, object]
    app: AppSettings | None
    state_directory: Path

    @property
    def work_directory(self) -> Path:
        return self.state_directory / "work"

    def make(self) -> tuple[Recipe, Transfers]:
        """A recipe, and transfers that know what is on disk but have not recovered from it yet."""
        self.work_directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        recipe = self.recipe(
            Surroundings(
                app_id=APP_ID,
                work_directory=self.work_directory,
                limits=RULES.limits,
                app_control=make_app_control(self.app),
                settings=self.settings,
            )
        )
        transfers = Transfers(
            recipe,
            app_id=APP_ID,
            made_by="test",
            journal=Journal(
                self.state_directory / "journal",
                app_id=APP_ID,
                recipe=recipe.name,
                versions=recipe.journal_versions,
                made_by="test",
            ),
            history=History(self.state_directory / "history.json"),
            rules=RULES,
            clock=SystemClock(),
        )
        return recipe, transfers


@dataclass
class Agent:
    """An agent that runs in this process, and may be started again."""

    launch: Launch
    recipe: Recipe = field(init=False)
    transfers: Transfers = field(init=False)

    async def start(self) -> None:
        """As the program does it before it serves."""
        self.recipe, self.transfers = self.launch.make()
        await self.transfers.housekeeping.recover()

    async def close(self) -> None:
        await self.transfers.close(grace_seconds=60)
        await self.recipe.close()

    async def restart(self) -> None:
        await self.close()
        await self.start()

    def frames(self, transfer_id: str, format: str = "", options: Mapping[str, str] = {}) -> AsyncGenerator[wire.Frame]:
        """Of an export, as a caller meets them."""
        return self._decoded(self.transfers.export(transfer_id, format, options))

    async def _decoded(self, outgoing: AsyncGenerator[wire.Frame | bytes]) -> AsyncGenerator[wire.Frame]:
        async with aclosing(outgoing):
            async for frame in outgoing:
                yield wire.Frame.FromString(frame) if isinstance(frame, bytes) else frame

    async def export(
        self, transfer_id: str, format: str = "", options: Mapping[str, str] = {}
    ) -> tuple[bytes, Receipt]:
        """A whole archive, checked against its end frame."""
        async with aclosing(self.frames(transfer_id, format, options)) as flowing:
            receiver = FrameReceiver(flowing, limit_bytes=LIMIT_BYTES)
            await receiver.open()
            file = b"".join([chunk async for chunk in receiver.chunks()])
            assert receiver.receipt is not None
            return file, receiver.receipt

    async def stage(
        self, transfer_id: str, upload: bytes | AsyncIterator[wire.Frame], *, dry_run: bool = False
    ) -> TransferState:
        """The last state."""
        flowing = whole(upload) if isinstance(upload, bytes) else upload
        states = self.transfers.stage(transfer_id, flowing, {}, dry_run=dry_run)
        return [state async for state in states][-1]

    async def restore(self, transfer_id: str) -> TransferState:
        return [state async for state in self.transfers.restore(transfer_id)][-1]

    async def undo(self, transfer_id: str = "") -> TransferState:
        return [state async for state in self.transfers.undo(transfer_id)][-1]

    async def import_(self, transfer_id: str, file: bytes) -> TransferState:
        """Stage and restore."""
        await self.stage(transfer_id, file)
        return await self.restore(transfer_id)

    def state(self, transfer_id: str) -> TransferState | None:
        """As the list of transfers has it."""
        return next((state for state in self.transfers.list() if state.transfer_id == transfer_id), None)

    async def archive(self, app: AppUnderTest, what: Fill) -> Archive:
        """An archive of that content, made once for an app; the app is filled with `OLD` afterwards."""
        if what not in app.archives:
            await app.fill(what)
            contents = await app.contents()
            file, receipt = await self.export(f"archive-{what.value}", options=app.export_options)
            app.archives[what] = Archive(file, contents, receipt)
            await app.fill(Fill.OLD)
        return app.archives[what]


def whole(file: bytes) -> AsyncIterator[wire.Frame]:
    """An upload of a file, to its end."""
    return frames(*(file[start : start + (1 << 20)] for start in range(0, len(file), 1 << 20)))
