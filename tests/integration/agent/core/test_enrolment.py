"""How an agent gets its first certificate and the next ones, from a controller that may misbehave."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509

from agent.enrolment import EnrolmentError, find_authority, provide_identity
from agent.identity import noted_renewal
from agent.settings import AgentSettings, ControllerSettings
from common.credentials import CONTROLLER_URI, Identity, IdentityFiles, JoinToken, agent_uri, fingerprint
from common.errors import NotAuthenticatedError, ServiceError
from common.status import status_code, trailing_metadata
from controller.identity.ca import CertificateAuthority
from mathison.data.v1 import enrolment_pb2 as messages
from mathison.data.v1 import enrolment_pb2_grpc
from tests.fixtures.agent_program import APP_ID
from tests.fixtures.waiting import until
from tests.integration.agent.core.conftest import AgentProcess

Context = grpc.aio.ServicerContext[Any, Any]


def now() -> dt.datetime:
    """The moment of the call: certificates are valid from shortly before they were asked for, not from this import."""
    return dt.datetime.now(dt.UTC)


class Controller(enrolment_pb2_grpc.EnrolmentServicer):
    """A controller's two ports, reduced to Enrol and Renew, with the real authority."""

    def __init__(self, directory: Path) -> None:
        self.authority = CertificateAuthority.open(directory)
        self.identity = self.authority.issue_controller()
        self.app_id = APP_ID
        self.is_lossy = False
        self.refusal: ServiceError | None = None
        self.requests: list[messages.EnrolRequest] = []
        self.renewals = 0
        self._servers: list[grpc.aio.Server] = []

    async def start(self) -> ControllerSettings:
        """Serve; where."""
        ports = []
        for asks_for_certificate in (False, True):
            server = grpc.aio.server()
            enrolment_pb2_grpc.add_EnrolmentServicer_to_server(self, server)
            credentials = grpc.ssl_server_credentials(
                [(self.identity.key, self.identity.certificate)],
                root_certificates=self.authority.pem if asks_for_certificate else None,
                require_client_auth=asks_for_certificate,
            )
            ports.append(server.add_secure_port("127.0.0.1:0", credentials))
            await server.start()
            self._servers.append(server)
        return ControllerSettings(enrolment=f"127.0.0.1:{ports[0]}", renewal=f"127.0.0.1:{ports[1]}")

    async def stop(self) -> None:
        for server in self._servers:
            await server.stop(0)

    def _issue(self, signing_request: bytes) -> Identity:
        key = x509.load_der_x509_csr(signing_request).public_key()
        return self.authority.issue_agent(self.app_id, key)  # type: ignore[arg-type]  # ours are P-256

    async def Enrol(self, request: messages.EnrolRequest, context: Context) -> messages.EnrolResponse:
        self.requests.append(request)
        if self.refusal is not None:
            await context.abort(
                status_code(self.refusal), self.refusal.text, trailing_metadata=trailing_metadata(self.refusal)
            )
        issued = self._issue(request.signing_request)
        if self.is_lossy:
            self.is_lossy = False
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the answer is lost")
        return messages.EnrolResponse(
            certificate=issued.certificate, certificate_authorities=issued.authorities, app_id=self.app_id
        )

    async def Renew(self, request: messages.RenewRequest, context: Context) -> messages.RenewResponse:
        assert list(context.auth_context()["peer_spiffe_id"]) == [agent_uri(APP_ID).encode()]
        self.renewals += 1
        issued = self._issue(request.signing_request)
        return messages.RenewResponse(certificate=issued.certificate, certificate_authorities=issued.authorities)


@pytest.fixture
async def controller(tmp_path: Path) -> AsyncIterator[Controller]:
    controller = Controller(tmp_path / "controller")
    yield controller
    await controller.stop()


@pytest.fixture
async def settings(controller: Controller, tmp_path: Path) -> AgentSettings:
    """An agent's, with a join token of that controller."""
    served = await controller.start()
    token_path = tmp_path / "token"
    token_path.write_text(JoinToken.make(controller.authority.certificate).text + "\n")
    return AgentSettings(
        app_id=APP_ID,
        recipe="fake",
        controller=ControllerSettings(served.enrolment, served.renewal, token_path),
        state_directory=tmp_path / "state",
    )


def identity_of(settings: AgentSettings) -> Identity:
    identity = IdentityFiles(settings.identity_directory).load()
    assert identity is not None
    return identity


async def test_an_agent_without_a_certificate_gets_one(controller: Controller, settings: AgentSettings) -> None:
    renew_at = await provide_identity(settings, now=now())

    identity = identity_of(settings)
    names = identity.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [agent_uri(APP_ID)]
    assert identity.authorities == controller.authority.pem
    assert renew_at == identity.renew_at()
    names_of_files = sorted(path.name for path in settings.identity_directory.iterdir())
    assert names_of_files == ["authorities.pem", "identity.pem", "renewal.json"]
    assert (settings.identity_directory / "identity.pem").stat().st_mode & 0o777 == 0o600


async def test_a_good_certificate_is_left_alone(controller: Controller, settings: AgentSettings) -> None:
    await provide_identity(settings, now=now())
    before = identity_of(settings)

    await provide_identity(settings, now=now() + dt.timedelta(days=1))

    assert identity_of(settings) == before
    assert (len(controller.requests), controller.renewals) == (1, 0)


async def test_the_token_is_not_shown_to_a_server_that_is_not_the_controller(
    controller: Controller, settings: AgentSettings, tmp_path: Path
) -> None:
    impostor = Controller(tmp_path / "impostor")
    served = await impostor.start()
    token = settings.controller.join_token_file
    misled = AgentSettings(
        app_id=APP_ID,
        recipe="fake",
        controller=ControllerSettings(served.enrolment, served.renewal, token),
        state_directory=settings.state_directory,
    )

    with pytest.raises(EnrolmentError, match="not the controller that made the join token"):
        await provide_identity(misled, now=now())

    assert impostor.requests == []
    await impostor.stop()


async def test_a_stolen_authority_certificate_does_not_make_a_controller(
    controller: Controller, settings: AgentSettings, tmp_path: Path
) -> None:
    impostor = Controller(tmp_path / "impostor")
    own = impostor.identity
    impostor.identity = Identity(own.key, own.certificate + controller.authority.pem, own.authorities)
    served = await impostor.start()
    misled = AgentSettings(
        app_id=APP_ID,
        recipe="fake",
        controller=ControllerSettings(served.enrolment, served.renewal, settings.controller.join_token_file),
        state_directory=settings.state_directory,
    )

    with pytest.raises(EnrolmentError):
        await provide_identity(misled, now=now())

    assert impostor.requests == []
    await impostor.stop()


async def test_an_agents_certificate_does_not_make_a_controller(
    controller: Controller, settings: AgentSettings, tmp_path: Path
) -> None:
    await provide_identity(settings, now=now())
    agents = identity_of(settings)
    impostor = Controller(tmp_path / "impostor")
    impostor.identity = Identity(agents.key, agents.certificate + controller.authority.pem, agents.authorities)
    served = await impostor.start()
    misled = AgentSettings(
        app_id="shop.web",
        recipe="fake",
        controller=ControllerSettings(served.enrolment, served.renewal, settings.controller.join_token_file),
        state_directory=tmp_path / "another state",
    )

    with pytest.raises(EnrolmentError):
        await provide_identity(misled, now=now())

    assert impostor.requests == []
    await impostor.stop()


async def test_after_a_lost_answer_the_same_key_is_sent_again(controller: Controller, settings: AgentSettings) -> None:
    controller.is_lossy = True
    with pytest.raises(EnrolmentError):
        await provide_identity(settings, now=now())

    await provide_identity(settings, now=now())

    first, second = (x509.load_der_x509_csr(request.signing_request) for request in controller.requests)
    assert first.public_key() == second.public_key()
    assert identity_of(settings).leaf.public_key() == second.public_key()


async def test_an_agent_says_which_app_it_is_for_and_tells_what_to_do_about_a_refusal(
    controller: Controller, settings: AgentSettings
) -> None:
    controller.refusal = NotAuthenticatedError("The join token was used already.", next_step="Make a new one.")

    with pytest.raises(EnrolmentError, match=r"used already\. Make a new one\."):
        await provide_identity(settings, now=now())

    assert [request.app_id for request in controller.requests] == [APP_ID]


async def test_a_token_of_another_app_is_named(controller: Controller, settings: AgentSettings) -> None:
    controller.app_id = "shop.web"

    with pytest.raises(EnrolmentError, match=r"made for shop\.web, and this agent is that of shop\.db"):
        await provide_identity(settings, now=now())

    assert IdentityFiles(settings.identity_directory).load() is None


@pytest.mark.parametrize(
    ("content", "said"), [(None, "cannot be read"), ("", "not a join token"), ("mathison-join.hunter2.00", "form")]
)
async def test_a_token_that_cannot_be_used_is_not_repeated(
    settings: AgentSettings, content: str | None, said: str
) -> None:
    path = settings.controller.join_token_file
    assert path is not None
    path.unlink()
    if content is not None:
        path.write_text(content)

    with pytest.raises(EnrolmentError, match=said) as caught:
        await provide_identity(settings, now=now())

    assert "hunter2" not in str(caught.value)


async def test_a_controller_that_is_not_there_is_named(controller: Controller, settings: AgentSettings) -> None:
    await controller.stop()

    with pytest.raises(EnrolmentError, match=settings.controller.enrolment):
        await provide_identity(settings, now=now())


async def test_a_port_that_closes_the_connection_is_told_as_that() -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    async with await asyncio.start_server(close, "127.0.0.1", 0) as server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"

        with pytest.raises(EnrolmentError, match="does not answer: it closed the connection, as a port that is not"):
            await find_authority(address, "0" * 64)


async def test_after_two_thirds_of_its_life_a_certificate_is_renewed(
    controller: Controller, settings: AgentSettings
) -> None:
    renew_at = await provide_identity(settings, now=now())
    before = identity_of(settings)

    await provide_identity(settings, now=renew_at)

    after = identity_of(settings)
    assert controller.renewals == 1
    assert after.leaf.serial_number != before.leaf.serial_number
    assert after.key != before.key


async def test_a_renewal_that_fails_leaves_the_certificate(controller: Controller, settings: AgentSettings) -> None:
    renew_at = await provide_identity(settings, now=now())
    before = identity_of(settings)
    await controller.stop()

    with pytest.raises(EnrolmentError):
        await provide_identity(settings, now=renew_at)

    assert identity_of(settings) == before


@pytest.mark.parametrize("what", ["run out", "damaged", "of another app"])
async def test_a_certificate_that_cannot_be_used_is_replaced_by_enrolling_again(
    controller: Controller, settings: AgentSettings, what: str
) -> None:
    if what == "of another app":
        controller.app_id = "shop.web"
        with pytest.raises(EnrolmentError):
            await provide_identity(settings, now=now())
        controller.app_id = APP_ID
    await provide_identity(settings, now=now())
    later = now()
    if what == "run out":
        later += dt.timedelta(days=365)
    elif what == "damaged":
        (settings.identity_directory / "identity.pem").write_text("half a fi")
    before = len(controller.requests)

    await provide_identity(settings, now=later)

    assert identity_of(settings).is_valid_at(now())
    assert len(controller.requests) == before + (what != "of another app")


async def test_what_was_noted_counts_for_that_identity_and_app_alone(
    controller: Controller, settings: AgentSettings
) -> None:
    files = IdentityFiles(settings.identity_directory)
    nothing = noted_renewal(files, APP_ID)
    renew_at = await provide_identity(settings, now=now())
    noted = noted_renewal(files, APP_ID)
    of_another_app = noted_renewal(files, "shop.web")

    files.save(controller.authority.issue_controller())

    assert (nothing, noted, of_another_app) == (None, renew_at, None)
    assert noted_renewal(files, APP_ID) is None


async def test_the_authority_is_found_by_its_fingerprint_alone(controller: Controller, settings: AgentSettings) -> None:
    wanted = fingerprint(controller.authority.certificate)

    assert await find_authority(settings.controller.enrolment, wanted) == controller.authority.pem
    with pytest.raises(EnrolmentError):
        await find_authority(settings.controller.enrolment, "00" * 32)


async def test_an_agent_waits_for_its_controller_and_then_serves(tmp_path: Path, controller: Controller) -> None:
    agent = AgentProcess(tmp_path / "agent")
    token = JoinToken.make(controller.authority.certificate)
    (tmp_path / "token").write_text(token.text)
    agent.controller["join_token_file"] = str(tmp_path / "token")
    agent.launch()
    try:
        await until(lambda: agent.log_path.exists() and "There is no certificate" in agent.log_path.read_text())
        before = agent.address_file.exists()
        served = await controller.start()
        agent.controller |= {"enrolment": served.enrolment, "renewal": served.renewal}
        # The enrolment program reads the settings each time, so the address may become right meanwhile.
        agent.write_config()
        await until(agent.address_file.exists)
    finally:
        await asyncio.to_thread(agent.close)

    assert not before
    assert CONTROLLER_URI not in agent.log_path.read_text()
    assert token.secret not in agent.log_path.read_text()
    assert [request.join_token for request in controller.requests] == [token.text]
