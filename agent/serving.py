"""The agent while it serves: what is started in which order, and stopped in the reverse.

Interrupted imports are brought to one side before the first call is answered. Stopping is: take no new calls, end
exports and uploads with a reason, let a restore finish within the grace period.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import structlog

from agent import library_pages
from agent.app_control import make_app_control
from agent.clock import Clock, SystemClock
from agent.history import History
from agent.identity import IdentityKeeper, enrolment_program, identity_files
from agent.journal import Journal
from agent.recipes.base import Recipe, Surroundings
from agent.recipes.registry import find_recipe
from agent.server import AgentServer
from agent.servicers.data_agent import DataAgentServicer
from agent.settings import AgentSettings
from agent.transfers import TransferRules, Transfers
from common.addresses import Address
from common.files import private_directory, state_directory, write_atomically
from common.sole_use import sole_use
from common.version import MADE_BY

_log = structlog.get_logger(__name__)


class StartError(Exception):
    """The agent cannot serve here; the text says why."""


def make_recipe(settings: AgentSettings) -> Recipe:
    """The recipe that the settings name.

    Raises:
        InvalidRequestError: there is none of that name, or its own settings are wrong.
    """
    surroundings = Surroundings(
        app_id=settings.app_id,
        work_directory=settings.work_directory,
        limits=settings.limits,
        app_control=make_app_control(settings.app),
        settings=settings.recipe_settings,
        made_by=MADE_BY,
    )
    return find_recipe(settings.recipe)(surroundings)


async def serve(settings: AgentSettings, settings_path: Path) -> None:
    """Serve until SIGTERM or SIGINT; a second one ends the program at once.

    A restore or an undo that outlasts the grace period ends the program here and now, with status 1: cancelling it
    would interrupt it in ways that a recipe need not expect, while a kill is what its journal is for.

    Raises:
        StartError, InUseError, InvalidRequestError, OSError: the agent cannot serve with these settings.
    """
    stopped = _stop_signal()
    clock = SystemClock()
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(sole_use(state_directory(settings.state_directory), program="agent"))
        private_directory(settings.work_directory)
        settings.address_file.unlink(missing_ok=True)
        recipe = make_recipe(settings)
        library_pages.let_go()
        stack.push_async_callback(recipe.close)
        transfers = _make_transfers(settings, recipe, clock)
        keeper = IdentityKeeper(enrolment_program(settings_path, settings, clock), clock)
        if not await _prepare(transfers, keeper, stopped):
            return
        servicer = DataAgentServicer(transfers, recipe, app_id=settings.app_id, started_at=clock.now())
        server = AgentServer(servicer, identity_files(settings.identity_directory))
        await _listen(server, settings)
        stack.callback(settings.address_file.unlink, missing_ok=True)
        async with _in_background(transfers, keeper):
            await stopped.wait()
            _log.info("The agent stops.", action="stop")
            await server.refuse_new_calls()
            grace_seconds = settings.stop_grace_seconds
            _, is_done = await asyncio.gather(server.stop(grace_seconds), transfers.close(grace_seconds))
            if not is_done:
                _log.error("A swap outlasted the grace period; the next start brings it to an end.", action="stop")
                os._exit(1)


def _make_transfers(settings: AgentSettings, recipe: Recipe, clock: Clock) -> Transfers:
    return Transfers(
        recipe,
        app_id=settings.app_id,
        made_by=MADE_BY,
        journal=Journal(
            settings.journal_directory,
            app_id=settings.app_id,
            recipe=settings.recipe,
            versions=recipe.journal_versions,
            made_by=MADE_BY,
        ),
        history=History(settings.state_directory / "history.json"),
        rules=TransferRules(
            limits=settings.limits,
            keep_previous=dt.timedelta(hours=settings.keep_previous_hours),
            keep_staged=dt.timedelta(minutes=settings.keep_staged_minutes),
            idle_seconds=settings.idle_seconds,
        ),
        clock=clock,
    )


async def _prepare(transfers: Transfers, keeper: IdentityKeeper, stopped: asyncio.Event) -> bool:
    """Recover, then wait for a certificate; False when the agent is told to stop meanwhile."""

    async def prepare() -> None:
        await transfers.housekeeping.recover()
        await keeper.provide()

    preparing = asyncio.create_task(prepare(), name="prepare")
    stopping = asyncio.create_task(stopped.wait(), name="wait for a stop")
    await asyncio.wait({preparing, stopping}, return_when=asyncio.FIRST_COMPLETED)
    is_prepared = preparing.done()
    for task in (preparing, stopping):
        task.cancel()
    await asyncio.gather(preparing, stopping, return_exceptions=True)
    if is_prepared:
        preparing.result()
    return is_prepared


async def _listen(server: AgentServer, settings: AgentSettings) -> None:
    try:
        port = await server.start(settings.listen)
    except (RuntimeError, ValueError) as failure:
        raise StartError(f"The agent cannot listen on {settings.listen}: {failure}") from failure
    address = str(Address(Address.parse(settings.listen).host, port))
    write_atomically(settings.address_file, address.encode(), mode=0o644)
    _log.info("The agent serves.", action="start", address=address, app_id=settings.app_id, recipe=settings.recipe)


@contextlib.asynccontextmanager
async def _in_background(transfers: Transfers, keeper: IdentityKeeper) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(transfers.housekeeping.run(), name="keep house"),
            group.create_task(keeper.run(), name="renew the certificate"),
        ]
        yield
        for task in tasks:
            task.cancel()


def _stop_signal() -> asyncio.Event:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        stopped.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    return stopped
