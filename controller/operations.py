"""What callers can do with the apps they may see; REST and gRPC both come here.

Each method takes the caller, checks scope and workspace, finds the agent, acts, and leaves its lines in the audit log.
The one fact to know: until an import's swap begins its caller can end it by leaving; from then on nobody can.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from common.errors import (
    AgentUnavailableError,
    ServiceError,
    TransferNotFoundError,
    say_unchanged,
    unchanged,
)
from common.transfer_ids import check_transfer_id
from controller import relay
from controller.agents import Agent, Agents, error_of
from controller.audit import Attempt, Audit
from controller.callers import Caller, Scope
from controller.discovery.inventory import App, Inventory, app_not_found
from controller.raw_frames import RawFrame
from controller.runs import Run, Runs
from mathison.data.v1 import agent_pb2 as wire
from mathison.data.v1 import transfer_pb2
from mathison.data.v1.transfer_pb2 import TransferState

LISTING_SECONDS = 5.0
"""How long one agent may take to describe its app in a list of all."""
_DESCRIBED_AT_ONCE = 32
_REMEMBERED_TRANSFERS = 10_000


@dataclass(frozen=True)
class Deployment:
    """An app as it is now."""

    app: App
    description: wire.DescribeResponse | None = None
    """None: its agent did not answer."""
    obstacle: str = ""
    """Why not, for a person."""

    @property
    def recipe(self) -> str:
        return self.description.recipe if self.description is not None else self.app.recipe


@dataclass(frozen=True)
class Order:
    """What an export or import is asked to do."""

    app_id: str
    transfer_id: str
    options: Mapping[str, str] = field(default_factory=dict)
    """The recipe's own."""
    format: str = ""
    """Exports only. Empty: the recipe's first."""
    is_dry_run: bool = False
    """Imports only."""


def transfer_id_or_new(text: str) -> str:
    """The id that a caller chose, checked, or a new one, for example "20261123-174210-9f3a2b1c".

    Raises:
        InvalidRequestError: as `check_transfer_id`.
    """
    if not text:
        return f"{dt.datetime.now(dt.UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"
    return check_transfer_id(text)


class Operations:
    """The operations on all apps."""

    def __init__(self, *, inventory: Inventory, agents: Agents, audit: Audit) -> None:
        self._inventory = inventory
        self._agents = agents
        self._audit = audit
        self._runs = Runs()
        self._stopping = asyncio.Event()
        self._apps_of_transfers: dict[str, str] = {}

    def apps(self, caller: Caller, *, workspace: str = "") -> list[App]:
        """The apps that the caller may see, in the order of their ids."""
        caller.require(Scope.READ)
        return [app for app in self._visible(caller) if workspace in ("", app.workspace)]

    async def deployments(self, caller: Caller, *, workspace: str = "") -> list[Deployment]:
        """The same apps, each asked for its description."""
        at_once = asyncio.Semaphore(_DESCRIBED_AT_ONCE)

        async def look(app: App) -> Deployment:
            async with at_once:
                return await self._look(app, timeout=LISTING_SECONDS)

        return await asyncio.gather(*map(look, self.apps(caller, workspace=workspace)))

    async def deployment(self, caller: Caller, app_id: str) -> Deployment:
        return await self._look(self._allow(caller, app_id, Scope.READ))

    async def describe(self, caller: Caller, app_id: str) -> Deployment:
        """As `deployment`, but AgentUnavailableError when the agent does not answer."""
        app = self._allow(caller, app_id, Scope.READ)
        async with self._agents.dial(app) as agent:
            return Deployment(app, await agent.describe())

    async def fingerprint(self, caller: Caller, app_id: str) -> wire.FingerprintResponse:
        """Of the app's content now; leaving early ends the reading."""
        with self._audit.attempt(caller, "fingerprint", app_id) as attempt:
            app = self._allow(caller, app_id, Scope.EXPORT)
            attempt.start()
            async with self._agents.dial(app) as agent:
                return await agent.fingerprint()

    async def export(self, caller: Caller, order: Order) -> AsyncGenerator[RawFrame, None]:
        """An archive's frames, checked; it counts as delivered once the generator was asked for more after the end."""
        with self._audit.attempt(caller, "export", order.app_id) as attempt:
            app = self._begin(attempt, caller, order, Scope.EXPORT)
            request = wire.ExportRequest(transfer_id=order.transfer_id, format=order.format, options=order.options)
            async with self._agents.dial(app) as agent, aclosing(relay.export(agent, request)) as frames:
                async for frame in frames:
                    attempt.size_bytes += len(frame.chunk)
                    if frame.message is not None and frame.kind == "end":
                        attempt.sha256 = frame.message.end.sha256
                    yield frame

    def import_data(
        self, caller: Caller, order: Order, frames: AsyncGenerator[bytes, None]
    ) -> AsyncGenerator[TransferState, None]:
        """Stage, then restore unless it is a dry run; the last state is the result.

        Args:
            frames: encoded StageRequests, checked by whoever made them. Not touched before the import is let through.
        """

        async def work(run: Run) -> None:
            async with aclosing(frames):
                with self._audit.attempt(caller, "import", order.app_id) as attempt:
                    attempt.is_dry_run = order.is_dry_run
                    with unchanged():
                        app = self._begin(attempt, caller, order, Scope.IMPORT)
                    async with self._agents.dial(app) as agent:
                        await self._import(agent, order, frames, run, attempt)

        return self._runs.follow(work, name=f"import into {order.app_id}")

    async def _import(
        self, agent: Agent, order: Order, frames: AsyncGenerator[bytes, None], run: Run, attempt: Attempt
    ) -> None:
        def publish(state: TransferState) -> None:
            attempt.size_bytes, attempt.sha256 = _received(state)
            run.publish(state)

        start = wire.StageStart(transfer_id=order.transfer_id, options=order.options, dry_run=order.is_dry_run)
        staged = await relay.stage(agent, start, frames, publish=publish)
        if _is_done(staged):
            return  # repeated, as when an answer was lost: the agent has compared the upload
        if staged.progress.phase != transfer_pb2.PHASE_STAGED:
            raise _bad_ending(staged, agent)
        if order.is_dry_run:
            return
        run.pass_return()
        attempt.is_past_return = True
        await _swap(agent, agent.restore(order.transfer_id), run, transfer_id=order.transfer_id)

    def undo(self, caller: Caller, app_id: str, transfer_id: str) -> AsyncGenerator[TransferState, None]:
        """Put back the data from before an import, the latest when no id is given. Goes on when the caller leaves."""

        async def work(run: Run) -> None:
            with self._audit.attempt(caller, "undo", app_id) as attempt:
                app = self._begin_settling(attempt, caller, app_id, transfer_id)
                run.pass_return()
                attempt.is_past_return = True
                async with self._agents.dial(app) as agent:
                    with unchanged():
                        await agent.reach()
                    last = await _swap(agent, agent.undo(transfer_id), run, transfer_id=transfer_id)
                    attempt.transfer_id = last.transfer_id

        return self._runs.follow(work, name=f"undo of {app_id}")

    async def confirm(self, caller: Caller, app_id: str, transfer_id: str) -> bool:
        """Drop the data from before an import, the latest when no id is given; False when there was none."""
        with self._audit.attempt(caller, "confirm", app_id) as attempt:
            app = self._begin_settling(attempt, caller, app_id, transfer_id)
            async with self._agents.dial(app) as agent:
                with unchanged():
                    await agent.reach()
                return await _discard(agent, transfer_id)

    async def cancel(self, caller: Caller, app_id: str, transfer_id: str) -> TransferState:
        """End a running transfer; needs the scope that the transfer needed."""
        with self._audit.attempt(caller, "cancel", app_id) as attempt:
            app = self._visible_app(caller, app_id)
            attempt.transfer_id = check_transfer_id(transfer_id)
            async with self._agents.dial(app) as agent:
                state = await agent.transfer(transfer_id)
                caller.require(Scope.EXPORT if state.kind == transfer_pb2.TRANSFER_KIND_EXPORT else Scope.IMPORT)
                attempt.start()
                return await agent.cancel(transfer_id)

    async def transfers(self, caller: Caller, app_id: str) -> Sequence[TransferState]:
        """What the app's agent remembers, latest first."""
        app = self._allow(caller, app_id, Scope.READ)
        async with self._agents.dial(app) as agent:
            return await agent.transfers()

    async def watch(self, caller: Caller, app_id: str, transfer_id: str) -> AsyncGenerator[TransferState, None]:
        """A transfer's state now and each time it changes, until it is over or the controller stops."""
        app = self._allow(caller, app_id, Scope.READ)
        check_transfer_id(transfer_id)
        async with (
            self._agents.dial(app) as agent,
            aclosing(agent.watch(transfer_id)) as states,
            aclosing(_until(self._stopping, states)) as watched,
        ):
            async for state in watched:
                yield state

    async def transfer(self, caller: Caller, app_id: str, transfer_id: str) -> TransferState:
        """One transfer now."""
        app = self._allow(caller, app_id, Scope.READ)
        async with self._agents.dial(app) as agent:
            return await agent.transfer(check_transfer_id(transfer_id))

    async def app_of_transfer(self, caller: Caller, transfer_id: str) -> str:
        """The id of the app whose transfer this is, among those that the caller may see.

        What came through here is remembered; after a restart, and for transfers that others started, all agents are
        asked at once.

        Raises:
            TransferNotFoundError: every agent says that it knows none.
            AgentUnavailableError: so do those that answer, but not all do.
        """
        check_transfer_id(transfer_id)
        visible = self._visible(caller)
        remembered = self._apps_of_transfers.get(transfer_id, "")
        if any(app.id == remembered for app in visible):
            return remembered
        tasks = [asyncio.create_task(self._has_transfer(app, transfer_id)) for app in visible]
        unanswered: ServiceError | None = None
        try:
            for finished in asyncio.as_completed(tasks):
                try:
                    found = await finished
                except ServiceError as failure:
                    unanswered = failure
                    continue
                if found is not None:
                    self._remember(transfer_id, found.id)
                    return found.id
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if unanswered is not None:
            raise AgentUnavailableError(
                f"No agent that answers knows a transfer {transfer_id}, and not all answer: {unanswered.text}",
                next_step="Ask again when all agents answer.",
            ) from unanswered
        raise TransferNotFoundError(f"No transfer {transfer_id} is known.", next_step="Look at the app's transfers.")

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    def stop(self) -> None:
        """End what only watches; transfers go on until `close`."""
        self._stopping.set()
        self._audit.is_stopping = True

    async def close(self, *, grace_seconds: float) -> None:
        """Wait for imports and undos, at most so long."""
        self.stop()
        await self._runs.close(grace_seconds=grace_seconds)

    def _visible(self, caller: Caller) -> list[App]:
        return [app for app in self._inventory.all() if caller.may_see(app.workspace)]

    def _visible_app(self, caller: Caller, app_id: str) -> App:
        app = self._inventory.get(app_id)
        if not caller.may_see(app.workspace):
            raise app_not_found(app_id)
        return app

    def _allow(self, caller: Caller, app_id: str, scope: Scope) -> App:
        """The app, if the caller may see it and has the scope; not seeing comes first, so nothing is given away."""
        app = self._visible_app(caller, app_id)
        caller.require(scope)
        return app

    def _begin(self, attempt: Attempt, caller: Caller, order: Order, scope: Scope) -> App:
        attempt.transfer_id = order.transfer_id
        app = self._allow(caller, order.app_id, scope)
        attempt.start()
        self._remember(order.transfer_id, app.id)
        return app

    def _begin_settling(self, attempt: Attempt, caller: Caller, app_id: str, transfer_id: str) -> App:
        """Of an undo or a confirmation, the latest import's when the id is empty."""
        with unchanged():
            app = self._allow(caller, app_id, Scope.IMPORT)
            attempt.transfer_id = check_transfer_id(transfer_id) if transfer_id else ""
            attempt.start()
            return app

    def _remember(self, transfer_id: str, app_id: str) -> None:
        self._apps_of_transfers.pop(transfer_id, None)
        self._apps_of_transfers[transfer_id] = app_id
        if len(self._apps_of_transfers) > _REMEMBERED_TRANSFERS:
            del self._apps_of_transfers[next(iter(self._apps_of_transfers))]

    async def _look(self, app: App, *, timeout: float | None = None) -> Deployment:
        try:
            async with self._agents.dial(app) as agent:
                return Deployment(app, await agent.describe(timeout=timeout) if timeout else await agent.describe())
        except ServiceError as failure:
            return Deployment(app, obstacle=failure.text)

    async def _has_transfer(self, app: App, transfer_id: str) -> App | None:
        try:
            async with self._agents.dial(app) as agent:
                await agent.transfer(transfer_id)
        except TransferNotFoundError:
            return None
        return app


async def _discard(agent: Agent, transfer_id: str) -> bool:
    try:
        return await agent.discard(transfer_id)
    except AgentUnavailableError as lost:
        if lost.is_refusal:
            say_unchanged(lost)
            raise
        raise AgentUnavailableError(
            f"{agent.peer} does not answer or went away while the data from before was to be dropped. What it has "
            "begun to drop it drops to the end when it is back.",
            next_step="The app's transfers tell then whether the import can still be undone.",
        ) from lost


async def _swap(
    agent: Agent, states: AsyncGenerator[TransferState, None], run: Run, *, transfer_id: str
) -> TransferState:
    """Follow Restore or Undo to its end and return the last state, which says that it is done."""
    last = TransferState()
    try:
        async with aclosing(states):
            async for last in states:
                run.publish(last)
    except AgentUnavailableError as lost:
        if lost.is_refusal:
            say_unchanged(lost)
            raise
        known_id = last.transfer_id or transfer_id
        raise AgentUnavailableError(
            f"{agent.peer} does not answer or went away while the app's data was being exchanged. When it is back it "
            "brings the app entirely to one side.",
            next_step=f"Look at transfer {known_id} then." if known_id else "Look at the app's transfers then.",
        ) from lost
    if last.result != transfer_pb2.TRANSFER_RESULT_SUCCEEDED:
        raise _bad_ending(last, agent)
    return last


def _is_done(state: TransferState) -> bool:
    is_over = state.progress.phase == transfer_pb2.PHASE_DONE
    return is_over and state.result == transfer_pb2.TRANSFER_RESULT_SUCCEEDED


def _bad_ending(state: TransferState, agent: Agent) -> ServiceError:
    return error_of(state) or AgentUnavailableError(f"{agent.peer} stopped without saying how it ended.")


def _received(state: TransferState) -> tuple[int, str]:
    """Bytes and digest of an upload as far as they are known."""
    if state.HasField("end"):
        return state.end.size_bytes, state.end.sha256
    return state.progress.read_bytes, ""


async def _until(
    stopping: asyncio.Event, states: AsyncGenerator[TransferState, None]
) -> AsyncGenerator[TransferState, None]:
    async def next_state() -> TransferState | None:
        return await anext(states, None)

    stop = asyncio.create_task(stopping.wait(), name="wait for the controller to stop")
    following = asyncio.create_task(next_state(), name="next state")
    try:
        while True:
            await asyncio.wait({following, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                raise AgentUnavailableError("The controller stops.", next_step="Ask again in a moment.")
            if (state := following.result()) is None:
                return
            yield state
            following = asyncio.create_task(next_state(), name="next state")
    finally:
        stop.cancel()
        following.cancel()
        await asyncio.gather(stop, following, return_exceptions=True)
