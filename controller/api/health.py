"""Whether the program lives and whether it takes calls; open to everybody, so it says nothing else."""

from __future__ import annotations

from aiohttp import web

from controller.api.keys import OPERATIONS


async def healthz(request: web.Request) -> web.Response:
    """GET /healthz: the event loop turns."""
    return web.json_response({"status": "alive"})


async def readyz(request: web.Request) -> web.Response:
    """GET /readyz: 503 once the controller is told to stop."""
    if request.app[OPERATIONS].is_stopping:
        return web.json_response({"status": "stopping"}, status=503)
    return web.json_response({"status": "ready"})
