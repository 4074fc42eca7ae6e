"""What is there: workspaces and apps."""

from __future__ import annotations

from aiohttp import web

from controller.api.keys import CALLER, OPERATIONS
from controller.api.queries import read_query
from controller.api.shapes import answer, deployment_to_json, message_to_json, transfer_to_json


async def list_workspaces(request: web.Request) -> web.Response:
    """GET /api/workspaces: each with the ids of its apps."""
    read_query(request)
    workspaces: dict[str, list[str]] = {}
    for app in request.app[OPERATIONS].apps(request[CALLER]):
        workspaces.setdefault(app.workspace, []).append(app.id)
    return answer({"workspaces": [{"name": name, "apps": apps} for name, apps in workspaces.items()]})


async def list_deployments(request: web.Request) -> web.Response:
    """GET /api/deployments[?workspace=]: each with its description, if its agent answers soon."""
    workspace = read_query(request, "workspace").text("workspace")
    deployments = await request.app[OPERATIONS].deployments(request[CALLER], workspace=workspace)
    return answer({"deployments": [deployment_to_json(deployment) for deployment in deployments]})


async def get_deployment(request: web.Request) -> web.Response:
    """GET /api/deployments/{id}."""
    read_query(request)
    deployment = await request.app[OPERATIONS].deployment(request[CALLER], request.match_info["id"])
    return answer(deployment_to_json(deployment))


async def get_fingerprint(request: web.Request) -> web.Response:
    """GET /api/deployments/{id}/fingerprint: of the content now; takes as long as reading all of it."""
    read_query(request)
    app_id = request.match_info["id"]
    found = await request.app[OPERATIONS].fingerprint(request[CALLER], app_id)
    return answer({"app_id": app_id, **message_to_json(found)})


async def list_transfers(request: web.Request) -> web.Response:
    """GET /api/deployments/{id}/transfers, latest first."""
    read_query(request)
    app_id = request.match_info["id"]
    transfers = await request.app[OPERATIONS].transfers(request[CALLER], app_id)
    return answer({"transfers": [transfer_to_json(state, app_id=app_id) for state in transfers]})
