"""Enrolment over the real ports: an agent's first certificate, and its next."""

from __future__ import annotations

import datetime as dt

import grpc
import pytest
from cryptography import x509

from common.credentials import (
    TARGET_NAME_OPTION,
    Identity,
    agent_name,
    agent_uri,
    controller_name,
    key_to_pem,
    new_key,
    signing_request,
)
from common.errors import InvalidRequestError, NotAuthenticatedError, NotPermittedError, ServiceError
from common.status import error_from_call
from mathison.data.v1 import enrolment_pb2 as wire
from mathison.data.v1 import enrolment_pb2_grpc
from tests.fixtures.controller import ControllerProcess

pytestmark = pytest.mark.asyncio(loop_scope="module")
LIFETIME = dt.timedelta(hours=1)


def join_token(controller: ControllerProcess, app_id: str = "shop.db", lifetime: dt.timedelta = LIFETIME) -> str:
    authority = controller.authority.certificate
    return controller.state.join_tokens().create(app_id, authority=authority, lifetime=lifetime).text


async def enrol(
    controller: ControllerProcess, token: str, request: bytes, app_id: str = "shop.db"
) -> wire.EnrolResponse:
    """Enrol on the port without client certificates."""
    credentials = grpc.ssl_channel_credentials(controller.authority.pem)
    options = [(TARGET_NAME_OPTION, controller_name())]
    async with grpc.aio.secure_channel(controller.enrolment, credentials, options) as channel:
        stub = enrolment_pb2_grpc.EnrolmentStub(channel)
        message = wire.EnrolRequest(join_token=token, signing_request=request, app_id=app_id)
        return await stub.Enrol(message, timeout=20)


async def renew(controller: ControllerProcess, identity: Identity, request: bytes) -> wire.RenewResponse:
    async with controller.channel(identity) as channel:
        stub = enrolment_pb2_grpc.EnrolmentStub(channel)
        return await stub.Renew(wire.RenewRequest(signing_request=request), timeout=20)


async def refusal(controller: ControllerProcess, token: str, request: bytes, app_id: str = "shop.db") -> ServiceError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await enrol(controller, token, request, app_id)
    return error_from_call(caught.value, peer="the controller")


async def test_a_join_token_buys_a_certificate_for_its_app(controller: ControllerProcess) -> None:
    key = new_key()

    answer = await enrol(controller, join_token(controller), signing_request(key))

    leaf = x509.load_pem_x509_certificate(answer.certificate)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert leaf.public_key() == key.public_key()
    assert names.get_values_for_type(x509.DNSName) == [agent_name("shop.db")]
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [agent_uri("shop.db")]
    assert answer.app_id == "shop.db"
    assert answer.certificate_authorities == controller.authority.pem
    assert leaf.not_valid_before_utc < answer.renew_at.ToDatetime(dt.UTC) < leaf.not_valid_after_utc


async def test_the_certificate_renews_itself(controller: ControllerProcess) -> None:
    key, next_key = new_key(), new_key()
    first = await enrol(controller, join_token(controller), signing_request(key))
    identity = Identity(key_to_pem(key), first.certificate, first.certificate_authorities)

    second = await renew(controller, identity, signing_request(next_key))

    leaf = x509.load_pem_x509_certificate(second.certificate)
    assert leaf.public_key() == next_key.public_key()
    renewed = Identity(key_to_pem(next_key), second.certificate, second.certificate_authorities)
    assert (await renew(controller, renewed, signing_request(next_key))).certificate


async def test_a_join_token_works_once_but_for_a_repeated_key(controller: ControllerProcess) -> None:
    token, request = join_token(controller), signing_request(new_key())
    first = await enrol(controller, token, request)

    again = await enrol(controller, token, request)
    with_another_key = await refusal(controller, token, signing_request(new_key()))

    assert again.certificate != first.certificate
    assert isinstance(with_another_key, NotAuthenticatedError)


@pytest.mark.parametrize("right", ["shop.db", ""])
async def test_an_agent_of_another_app_leaves_the_token_to_the_right_one(
    controller: ControllerProcess, right: str
) -> None:
    token = join_token(controller)

    error = await refusal(controller, token, signing_request(new_key()), "shop.web")

    assert isinstance(error, NotAuthenticatedError)
    assert "made for shop.db, and this agent is that of shop.web. It was not used up." in error.text
    assert (await enrol(controller, token, signing_request(new_key()), right)).app_id == "shop.db"


async def test_a_join_token_expires(controller: ControllerProcess) -> None:
    token = join_token(controller, lifetime=dt.timedelta(seconds=-1))

    error = await refusal(controller, token, signing_request(new_key()))

    assert isinstance(error, NotAuthenticatedError)
    assert "expired" in error.text


@pytest.mark.parametrize("token", ["", "nonsense", f"mathison-join.{'A' * 43}.{'0' * 64}"])
async def test_an_unknown_join_token_is_refused_and_not_repeated(controller: ControllerProcess, token: str) -> None:
    error = await refusal(controller, token, signing_request(new_key()))

    assert isinstance(error, NotAuthenticatedError)
    assert not token or token not in error.text


async def test_a_join_token_for_an_app_that_was_removed_is_refused(controller: ControllerProcess) -> None:
    error = await refusal(controller, join_token(controller, "shop.gone"), signing_request(new_key()), "shop.gone")

    assert isinstance(error, NotAuthenticatedError)
    assert "no app any more" in error.text


async def test_a_broken_signing_request_does_not_use_the_token_up(controller: ControllerProcess) -> None:
    token, request = join_token(controller), signing_request(new_key())

    broken = await refusal(controller, token, b"\x30" + request)
    huge = await refusal(controller, token, b"x" * 9000)

    assert isinstance(broken, InvalidRequestError)
    assert isinstance(huge, InvalidRequestError)
    assert (await enrol(controller, token, request)).app_id == "shop.db"


async def test_an_agent_of_an_app_that_was_removed_cannot_renew(controller: ControllerProcess) -> None:
    identity = controller.agent_identity("shop.gone")

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await renew(controller, identity, signing_request(new_key()))

    assert isinstance(error_from_call(caught.value, peer="the controller"), NotPermittedError)


async def test_nothing_but_enrolling_is_possible_without_a_certificate(controller: ControllerProcess) -> None:
    credentials = grpc.ssl_channel_credentials(controller.authority.pem)
    options = [(TARGET_NAME_OPTION, controller_name())]
    async with grpc.aio.secure_channel(controller.enrolment, credentials, options) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await enrolment_pb2_grpc.EnrolmentStub(channel).Renew(
                wire.RenewRequest(signing_request=signing_request(new_key()))
            )

    assert isinstance(error_from_call(caught.value, peer="the controller"), NotPermittedError)


async def test_the_chain_shows_the_authority_whose_fingerprint_is_in_the_token(controller: ControllerProcess) -> None:
    shown = await shown_chain(controller.enrolment)

    assert controller.authority.pem.strip() in shown


async def shown_chain(address: str) -> bytes:
    """The certificates that a port sends, by the real openssl."""
    import asyncio
    import subprocess

    process = await asyncio.create_subprocess_exec(
        *("openssl", "s_client", "-connect", address, "-showcerts", "-alpn", "h2"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    output, _ = await process.communicate()
    return output
