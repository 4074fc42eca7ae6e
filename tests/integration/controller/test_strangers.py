"""Another than the app's agent at the address in the settings is refused, and the person is told who it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from common.credentials import Identity, key_to_pem, new_key
from controller.discovery.inventory import App
from controller.identity.ca import CertificateAuthority
from controller.strangers import stranger_at
from tests.fakes.fake_agent import FakeAgent
from tests.fixtures.controller import ControllerProcess, start_agent

pytestmark = pytest.mark.asyncio(loop_scope="module")

Uses = Callable[[CertificateAuthority, CertificateAuthority], Identity]
"""An identity, given the controller's own authority and that of another installation."""


def agent_of(app_id: str, authority: CertificateAuthority) -> Identity:
    key = new_key()
    signed = authority.issue_agent(app_id, key.public_key())
    return Identity(key=key_to_pem(key), certificate=signed.certificate, authorities=signed.authorities)


@asynccontextmanager
async def listening(identity: Identity) -> AsyncIterator[str]:
    """The address of an agent that has this identity."""
    agent = FakeAgent("any.one")
    await agent.start(identity)
    try:
        yield agent.address
    finally:
        await agent.stop()


@pytest.mark.parametrize(
    ("uses", "said"),
    [
        (lambda own, other: agent_of("shop.db", own), ""),
        (lambda own, other: agent_of("shop.files", own), "the agent of shop.files answers"),
        (lambda own, other: agent_of("blog.db", own), "the agent of an app in another workspace answers"),
        (lambda own, other: own.issue_controller(), "something answers that is no agent"),
        (lambda own, other: agent_of("shop.db", other), "something answers whose certificate is not trusted"),
    ],
    ids=["the agent", "another of the workspace", "another of all", "a controller", "another installation's"],
)
async def test_who_answers_is_told_by_its_certificate(tmp_path: Path, uses: Uses, said: str) -> None:
    own, other = (CertificateAuthority.open(tmp_path / name) for name in ("own", "other"))
    async with listening(uses(own, other)) as address:
        found = await stranger_at(App(id="shop.db", agent=address), agent_of("shop.db", own).authorities)

    assert found.startswith(said)
    assert bool(found) == bool(said)


async def test_what_speaks_no_tls_and_an_address_where_nobody_listens_are_told_apart(tmp_path: Path) -> None:
    authorities = agent_of("shop.db", CertificateAuthority.open(tmp_path / "own")).authorities

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    address = "{}:{}".format(*server.sockets[0].getsockname())
    async with server:
        of_web_server = await stranger_at(App(id="shop.db", agent=address), authorities)
    of_nobody = await stranger_at(App(id="shop.db", agent=address), authorities)

    assert of_web_server == "something answers that does not speak TLS"
    assert of_nobody == ""


async def test_agents_whose_addresses_were_exchanged_are_told_and_stay_refused(
    own_controller: ControllerProcess,
) -> None:
    agents = [await start_agent(own_controller, app_id) for app_id in ("shop.db", "shop.files")]
    own_controller.apps = dict(zip(own_controller.apps, reversed(own_controller.apps.values()), strict=True))
    await own_controller.start()
    headers = own_controller.bearer(own_controller.token())

    async with aiohttp.ClientSession(own_controller.rest, headers=headers) as client:
        async with client.get("/api/deployments/shop.db") as answer:
            described = await answer.json()
        async with client.post("/api/deployments/shop.db/undo-import") as answer:
            undone = await answer.json()

    for agent in agents:
        await agent.stop()
    told = "The agent of shop.db does not answer or went away. At its address the agent of shop.files answers."
    assert (described["is_available"], described["obstacle"]) == (False, told)
    assert (answer.status, undone["detail"]) == (503, f"{told} Nothing was changed.")
    assert undone["next_step"].startswith("Correct the address of shop.db in the controller's settings")
