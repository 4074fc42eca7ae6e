"""`mathison apps`: every app with its description, asked for side by side where the list does not hold it."""

from __future__ import annotations

import asyncio

import msgspec

from cli.client import Controller
from cli.models import App
from common.errors import ServiceError

AT_ONCE = 8
"""Requests under way: enough for a workspace, few for a controller."""


async def list_described(controller: Controller) -> tuple[App, ...]:
    """The apps that the caller may see. One whose agent fails while it is asked is listed with that as its obstacle."""
    places = asyncio.Semaphore(AT_ONCE)

    async def described(app: App) -> App:
        if app.description is not None or not app.is_available:
            return app
        async with places:
            try:
                return await controller.app(app.id)
            except ServiceError as failure:
                return msgspec.structs.replace(app, is_available=False, obstacle=failure.text)

    return tuple(await asyncio.gather(*(described(app) for app in await controller.apps())))
