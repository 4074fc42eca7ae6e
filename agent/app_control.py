"""Stops and starts the app by the commands in the agent's settings."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from agent.processes import Command, run
from agent.recipes.base import AppControl
from agent.settings import AppSettings
from common.errors import AppBusyError, AppMustStopError, ToolFailedError

_log = structlog.get_logger(__name__)


def make_app_control(settings: AppSettings | None) -> AppControl:
    """By commands where there are any."""
    return NoAppControl() if settings is None else CommandAppControl(settings)


class CommandAppControl:
    """Implements recipes.base.AppControl with two commands."""

    def __init__(self, settings: AppSettings) -> None:
        self._settings = settings

    @property
    def is_possible(self) -> bool:
        return True

    async def stop(self) -> None:
        """
        Raises:
            AppBusyError: the command failed or took too long; whether the app runs is not known.
        """
        try:
            await self._run("stop", self._settings.stop)
        except ToolFailedError as failure:
            raise AppBusyError(
                f"The app could not be stopped: {failure.text}", next_step="Look at the app, then try again."
            ) from failure

    async def start(self) -> None:
        """
        Raises:
            ToolFailedError: the command failed or took too long.
        """
        try:
            await self._run("start", self._settings.start)
        except ToolFailedError as failure:
            raise ToolFailedError(
                f"The app could not be started: {failure.text}", next_step="Start the app by hand."
            ) from failure

    async def _run(self, what: str, argv: Sequence[str]) -> None:
        _log.info("The app is told by command.", action=f"{what}_app", program=argv[0])
        try:
            async with asyncio.timeout(self._settings.timeout_seconds):
                await run(Command(argv))
        except TimeoutError:
            raise ToolFailedError(
                f"{argv[0]} did not return within {self._settings.timeout_seconds:.0f} seconds. What it leaves running "
                "must be in a session of its own and hold none of its outputs."
            ) from None


class NoAppControl:
    """There is no way to stop the app from here."""

    @property
    def is_possible(self) -> bool:
        return False

    async def stop(self) -> None:
        raise AppMustStopError(
            "The app has to be stopped, and the agent has no way to do that.",
            next_step="Add the commands to the agent's [app] settings.",
        )

    async def start(self) -> None:
        raise AppMustStopError("The agent has no way to start the app.")
