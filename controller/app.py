"""The REST API put together: keys, middlewares, routes."""

from __future__ import annotations

from aiohttp import web

from controller.admission import Admission
from controller.api import deployments, exports, imports, transfers
from controller.api.callers import authenticate, log_requests
from controller.api.health import healthz, readyz
from controller.api.keys import ADMISSION, LIMITS, OPERATIONS
from controller.api.problems import answer_problems
from controller.api.uploads import ask_later
from controller.operations import Operations
from controller.settings import LimitSettings


def make_app(operations: Operations, admission: Admission, limits: LimitSettings) -> web.Application:
    """The application; `make_runner` serves it."""
    app = web.Application(middlewares=[log_requests, answer_problems, authenticate])
    app[OPERATIONS] = operations
    app[ADMISSION] = admission
    app[LIMITS] = limits
    deployment = "/api/deployments/{id}"
    app.add_routes(
        [
            web.get("/healthz", healthz),
            web.get("/readyz", readyz),
            web.get("/api/workspaces", deployments.list_workspaces),
            web.get("/api/deployments", deployments.list_deployments),
            web.get(deployment, deployments.get_deployment),
            web.get(f"{deployment}/transfers", deployments.list_transfers),
            web.get(f"{deployment}/fingerprint", deployments.get_fingerprint),
            web.post(f"{deployment}/export-data", exports.export_data),
            web.post(f"{deployment}/import-data", imports.import_data, expect_handler=ask_later),
            web.post(f"{deployment}/undo-import", imports.undo_import),
            web.post(f"{deployment}/confirm-import", imports.confirm_import),
            web.get("/api/transfers/{id}", transfers.get_transfer),
            # aiohttp 3.14.5 would write the events behind a HEAD's answer, where the next one is expected.
            web.get("/api/transfers/{id}/events", transfers.follow_transfer, allow_head=False),
            web.delete("/api/transfers/{id}", transfers.cancel_transfer),
        ]
    )
    return app


def make_runner(app: web.Application, *, stop_grace_seconds: float) -> web.AppRunner:
    """A caller who leaves cancels the handler. `connections.Site` serves it."""
    return web.AppRunner(
        app,
        handler_cancellation=True,
        # aiohttp 3.14.5 waits this long twice: for handlers to end, then once more after it broke their bodies.
        shutdown_timeout=stop_grace_seconds / 2,
    )
