"""Who may do what over REST, and how requests that lead nowhere are answered."""

from __future__ import annotations

import datetime as dt
import json

import aiohttp
import pytest

from controller.callers import Scope
from tests.fakes.fake_agent import FakeAgent
from tests.fixtures.controller import ControllerProcess

pytestmark = pytest.mark.asyncio(loop_scope="module")
EXPORT = ("POST", "/api/deployments/shop.db/export-data")
IMPORT = ("POST", "/api/deployments/shop.db/import-data")
UNDO = ("POST", "/api/deployments/shop.db/undo-import")
CONFIRM = ("POST", "/api/deployments/shop.db/confirm-import")
DESCRIBE = ("GET", "/api/deployments/shop.db")
FINGERPRINT = ("GET", "/api/deployments/shop.db/fingerprint")
TRANSFERS = ("GET", "/api/deployments/shop.db/transfers")
TRANSFER = ("GET", "/api/transfers/t-1")
EVENTS = ("GET", "/api/transfers/t-1/events")
CANCEL = ("DELETE", "/api/transfers/t-1")
OF_ONE_APP = [EXPORT, IMPORT, UNDO, CONFIRM, DESCRIBE, FINGERPRINT, TRANSFERS, TRANSFER, EVENTS, CANCEL]


async def ask(
    controller: ControllerProcess, method: str, path: str, token: str | None
) -> tuple[int, dict[str, object], aiohttp.ClientResponse]:
    headers = controller.bearer(token) if token is not None else {}
    async with (
        aiohttp.ClientSession(controller.rest, headers=headers) as session,
        session.request(method, path) as answer,
    ):
        text = await answer.read()
        content = json.loads(text) if answer.content_type.endswith("json") else {}
        return answer.status, content, answer


@pytest.mark.parametrize(("method", "path"), [*OF_ONE_APP, ("GET", "/api/deployments"), ("GET", "/api/nothing")])
async def test_every_route_but_health_needs_a_token(controller: ControllerProcess, method: str, path: str) -> None:
    for token in (None, "", "nonsense", "mathison-api." + "A" * 43):
        status, problem, answer = await ask(controller, method, path, token)

        assert (status, problem["reason"]) == (401, "NOT_AUTHENTICATED")
        assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(("path", "content"), [("/healthz", {"status": "alive"}), ("/readyz", {"status": "ready"})])
async def test_health_is_open_to_everybody(controller: ControllerProcess, path: str, content: object) -> None:
    status, found, _ = await ask(controller, "GET", path, None)

    assert (status, found) == (200, content)


@pytest.mark.parametrize(("method", "path"), OF_ONE_APP)
async def test_what_is_in_a_hidden_workspace_does_not_exist(
    controller: ControllerProcess, agent: FakeAgent, token: str, method: str, path: str
) -> None:
    await ask(controller, *EXPORT, token)
    chosen = next(iter(agent.states))
    hidden = path.replace("t-1", chosen)
    stranger = controller.token(f"{method}{path.replace('/', '.')}", workspaces=["blog"])

    status, problem, _ = await ask(controller, method, hidden, stranger)

    missing = hidden.replace("shop.db", "blog.db").replace(chosen, "t-9")
    assert status == 404
    assert problem["reason"] in ("APP_NOT_FOUND", "TRANSFER_NOT_FOUND")
    status_of_missing, said_of_missing, _ = await ask(controller, method, missing, stranger)
    assert status_of_missing == 404
    assert str(said_of_missing["detail"]).replace("blog.db", "shop.db").replace("t-9", chosen) == problem["detail"]


async def test_lists_hold_only_what_the_caller_may_see(controller: ControllerProcess, agent: FakeAgent) -> None:
    token = controller.token("blogger", workspaces=["blog"])

    _, deployments, _ = await ask(controller, "GET", "/api/deployments", token)
    _, workspaces, _ = await ask(controller, "GET", "/api/workspaces", token)

    assert deployments == {"deployments": []}
    assert workspaces == {"workspaces": []}


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [
        (Scope.READ, [DESCRIBE, TRANSFERS, ("GET", "/api/deployments"), ("GET", "/api/workspaces")]),
        (Scope.EXPORT, [EXPORT, FINGERPRINT]),
        (Scope.IMPORT, [IMPORT, CONFIRM]),
    ],
    ids=str,
)
async def test_a_scope_allows_its_own_routes_and_no_others(
    controller: ControllerProcess, agent: FakeAgent, scope: Scope, allowed: list[tuple[str, str]]
) -> None:
    token = controller.token(f"only-{scope}", scopes=[scope])
    listings = [("GET", "/api/deployments"), ("GET", "/api/workspaces")]
    routes = [DESCRIBE, FINGERPRINT, TRANSFERS, *listings, EXPORT, IMPORT, CONFIRM]

    statuses = {route: (await ask(controller, *route, token))[0] for route in routes}

    assert statuses == {route: 200 if route in allowed else 403 for route in routes}


async def test_a_cancel_needs_the_scope_of_the_transfer(
    controller: ControllerProcess, agent: FakeAgent, token: str
) -> None:
    await ask(controller, *EXPORT, token)
    chosen = next(iter(agent.states))
    path = f"/api/transfers/{chosen}"

    importer = await ask(controller, "DELETE", path, controller.token("importer", scopes=[Scope.IMPORT]))
    exporter = await ask(controller, "DELETE", path, controller.token("exporter", scopes=[Scope.EXPORT]))

    assert (importer[0], exporter[0]) == (403, 200)


async def test_a_revoked_token_is_refused_from_the_next_call_on(controller: ControllerProcess) -> None:
    token = controller.token("leaver")
    before, _, _ = await ask(controller, "GET", "/api/deployments", token)

    controller.state.tokens().revoke("leaver")
    after, _, _ = await ask(controller, "GET", "/api/deployments", token)

    assert (before, after) == (200, 401)


async def test_an_expired_token_is_refused(controller: ControllerProcess) -> None:
    token = controller.state.tokens().create(
        "past", scopes=frozenset(Scope), workspaces=None, lifetime=dt.timedelta(seconds=-1)
    )

    status, problem, _ = await ask(controller, "GET", "/api/deployments", token)

    assert status == 401
    assert "expired" in str(problem["detail"])


async def test_callers_without_a_valid_token_are_in_the_audit_log_each_counted_and_none_with_its_token(
    own_controller: ControllerProcess,
) -> None:
    await own_controller.start()
    guesses = [None, "guessed-7d1f", "guessed-7d1f", "guessed-7d1f"]

    for guess in guesses:
        await ask(own_controller, *EXPORT, guess)
    await own_controller.stop()

    first, *others = own_controller.audit()
    assert (first["action"], first["result"], first["reason"]) == ("authenticate", "refused", "NOT_AUTHENTICATED")
    assert first["remote_address"] == "127.0.0.1"
    assert sum(("remote_address" in line) + line.get("left_out", 0) for line in (first, *others)) == len(guesses)
    assert "7d1f" not in own_controller.state.audit.read_text()


async def test_refused_attempts_are_in_the_audit_log(controller: ControllerProcess, agent: FakeAgent) -> None:
    reader = controller.token("reader", scopes=[Scope.READ])
    stranger = controller.token("stranger", workspaces=["blog"])

    for route in (EXPORT, IMPORT, UNDO, CONFIRM):
        await ask(controller, *route, reader)
    await ask(controller, *EXPORT, stranger)

    lines = controller.audit()
    assert [(line["action"], line["caller"], line["result"], line["reason"]) for line in lines] == [
        ("export", "reader", "refused", "NOT_PERMITTED"),
        ("import", "reader", "refused", "NOT_PERMITTED"),
        ("undo", "reader", "refused", "NOT_PERMITTED"),
        ("confirm", "reader", "refused", "NOT_PERMITTED"),
        ("export", "stranger", "refused", "APP_NOT_FOUND"),
    ]


async def test_no_secret_is_in_the_logs(controller: ControllerProcess, agent: FakeAgent, token: str) -> None:
    for route in OF_ONE_APP:
        await ask(controller, *route, token)
        await ask(controller, *route, token + "x")

    assert token not in controller.log.read_text()
    assert token not in controller.state.audit.read_text()
    assert token not in (controller.state.directory / "tokens.json").read_text()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/nothing", 404),
        ("GET", "/", 404),
        ("PUT", "/api/deployments", 405),
        ("GET", "/api/deployments/shop.db/export-data", 405),
        ("HEAD", "/api/deployments/shop.db/export-data", 405),
        ("HEAD", "/api/transfers/t-1/events", 405),
        ("GET", "/api/deployments/shop.db?color=red", 400),
        ("GET", "/api/transfers/a%20b", 400),
        ("GET", "/api/transfers/a%0D%0Ab:%20c", 400),
    ],
)
async def test_requests_that_lead_nowhere_are_problems(
    controller: ControllerProcess, token: str, method: str, path: str, status: int
) -> None:
    found, problem, answer = (
        await ask(controller, method, path, token) if method != "HEAD" else await head(controller, path, token)
    )

    assert found == status
    assert answer.content_type == "application/problem+json"
    assert method == "HEAD" or problem["status"] == status
    assert ("Allow" in answer.headers) == (status == 405)


async def head(
    controller: ControllerProcess, path: str, token: str
) -> tuple[int, dict[str, object], aiohttp.ClientResponse]:
    async with (
        aiohttp.ClientSession(controller.rest, headers=controller.bearer(token)) as session,
        session.head(path) as answer,
    ):
        return answer.status, {}, answer
