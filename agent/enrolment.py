"""How the agent gets its certificate: a program of its own that the agent runs, `python -m agent.enrolment FILE`.

A program, because it needs what the serving agent can do without (`cryptography`, a client channel: 15 MiB), for a
second every few weeks. It makes the key, writes the identity's files and prints an `Outcome`; the agent sees the files.

The first time it knows the controller only by the fingerprint in the join token. It asks for the server's chain without
trusting it, takes from it the authority that has the fingerprint, and trusts that one alone for the call that carries
the token.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ssl
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import grpc
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agent.identity import Outcome, note_renewal
from agent.settings import AgentSettings, read_settings
from common.addresses import Address
from common.credentials import (
    TARGET_NAME_OPTION,
    Identity,
    IdentityFiles,
    JoinToken,
    agent_uri,
    controller_name,
    fingerprint,
    key_to_pem,
    new_key,
    signing_request,
)
from common.errors import AgentUnavailableError, ServiceError
from common.files import private_directory, write_atomically
from common.settings_files import SettingsError
from common.status import error_from_call
from mathison.data.v1 import enrolment_pb2, enrolment_pb2_grpc

TIMEOUT_SECONDS = 15.0
T = TypeVar("T")


class EnrolmentError(Exception):
    """No certificate this time; the text says why and holds no secret."""


async def provide_identity(settings: AgentSettings, *, now: dt.datetime) -> dt.datetime:
    """See that the identity's files are good: enrol when there is none, renew when it is time.

    Returns:
        When to call this again.
    Raises:
        EnrolmentError: not possible now; an identity that is there stays as it is.
    """
    files = IdentityFiles(settings.identity_directory)
    identity = _usable(files, settings.app_id, now)
    if identity is None:
        identity = await _enrol(settings, files)
    elif now >= identity.renew_at():
        identity = await _renew(settings, files, identity)
    try:
        note_renewal(files, settings.app_id, identity.renew_at())
    except ValueError as failure:
        raise EnrolmentError(f"What the controller answered cannot be used: {failure}.") from failure
    return identity.renew_at()


def _usable(files: IdentityFiles, app_id: str, now: dt.datetime) -> Identity | None:
    """The identity that is there, if it is this app's and has not run out."""
    try:
        identity = files.load()
    except ValueError:
        return None
    if identity is None or not identity.is_valid_at(now):
        return None
    names = identity.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return identity if agent_uri(app_id) in names.get_values_for_type(x509.UniformResourceIdentifier) else None


async def _enrol(settings: AgentSettings, files: IdentityFiles) -> Identity:
    token = _read_token(settings.controller.join_token_file)
    address = settings.controller.enrolment
    authority = await find_authority(address, token.authority_fingerprint)
    # Kept until the answer is here: the same token is answered again for the same key only.
    pending = private_directory(files.directory) / "pending-key.pem"
    key = _read_key(pending)
    if key is None:
        key = new_key()
        write_atomically(pending, key_to_pem(key))
    request = enrolment_pb2.EnrolRequest(
        join_token=token.text, signing_request=signing_request(key), app_id=settings.app_id
    )
    response = await _call(
        address,
        grpc.ssl_channel_credentials(authority),
        lambda stub: stub.Enrol(request, timeout=TIMEOUT_SECONDS),
    )
    if response.app_id != settings.app_id:  # a controller of before does not look at the app
        raise EnrolmentError(
            f"The join token was made for {response.app_id}, and this agent is that of {settings.app_id}."
        )
    identity = _save(files, key, response.certificate, response.certificate_authorities)
    pending.unlink()
    return identity


async def _renew(settings: AgentSettings, files: IdentityFiles, identity: Identity) -> Identity:
    key = new_key()
    request = enrolment_pb2.RenewRequest(signing_request=signing_request(key))
    response = await _call(
        settings.controller.renewal,
        identity.channel_credentials(),
        lambda stub: stub.Renew(request, timeout=TIMEOUT_SECONDS),
    )
    return _save(files, key, response.certificate, response.certificate_authorities)


def _save(files: IdentityFiles, key: ec.EllipticCurvePrivateKey, certificate: bytes, authorities: bytes) -> Identity:
    if x509.load_pem_x509_certificate(certificate).public_key() != key.public_key():
        raise EnrolmentError("The controller answered with a certificate for another key.")
    identity = Identity(key=key_to_pem(key), certificate=certificate, authorities=authorities)
    files.save(identity)
    return identity


def _read_token(path: Path | None) -> JoinToken:
    if path is None:
        raise EnrolmentError("There is no certificate yet and controller.join_token_file is not set.")
    try:
        return JoinToken.parse(path.read_text())
    except OSError as failure:
        raise EnrolmentError(f"The join token cannot be read from {path}: {failure.strerror}.") from failure
    except ValueError as failure:
        raise EnrolmentError(f"{path}: {failure}.") from failure


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey | None:
    with contextlib.suppress(OSError, ValueError):
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        if isinstance(key, ec.EllipticCurvePrivateKey):
            return key
    return None


async def find_authority(address: str, wanted_fingerprint: str) -> bytes:
    """The certificate with that fingerprint from the chain that a server presents, in PEM; nothing else is believed.

    Raises:
        EnrolmentError: no such server, or it is not the one that the token was made by.
    """
    parsed = Address.parse(address)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            _, writer = await asyncio.open_connection(
                parsed.host, parsed.port, ssl=context, server_hostname=controller_name()
            )
    except TimeoutError as failure:
        raise EnrolmentError(f"The controller at {address} does not answer in time.") from failure
    except OSError as failure:
        # asyncio says nothing of a connection that was closed during the handshake.
        cause = str(failure) or "it closed the connection, as a port that is not the one for enrolment may do"
        raise EnrolmentError(f"The controller at {address} does not answer: {cause}.") from failure
    chain = _chain(writer.get_extra_info("ssl_object"))
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    for der in chain:
        certificate = x509.load_der_x509_certificate(der)
        if fingerprint(certificate) == wanted_fingerprint:
            return certificate.public_bytes(serialization.Encoding.PEM)
    raise EnrolmentError(f"What answers at {address} is not the controller that made the join token.")


def _chain(connection: Any) -> list[bytes]:
    """All certificates that the peer sent, in DER. Public from Python 3.13 on; before, the same one level below."""
    if hasattr(connection, "get_unverified_chain"):
        return list(connection.get_unverified_chain())
    pems = [found.public_bytes() for found in connection._sslobj.get_unverified_chain() or ()]
    return [ssl.PEM_cert_to_DER_cert(pem) for pem in pems]


async def _call(
    address: str,
    credentials: grpc.ChannelCredentials,
    call: Callable[[enrolment_pb2_grpc.EnrolmentStub], Awaitable[T]],
) -> T:
    options = [(TARGET_NAME_OPTION, controller_name())]
    async with grpc.aio.secure_channel(address, credentials, options=options) as channel:
        try:
            return await call(enrolment_pb2_grpc.EnrolmentStub(channel))
        except grpc.aio.AioRpcError as failure:
            error = error_from_call(failure, peer=f"The controller at {address}")
            # That of a call without an answer is about an app's agent.
            next_step = "" if isinstance(error, AgentUnavailableError) else error.next_step
            raise EnrolmentError(f"{error.text} {next_step}".rstrip()) from failure


def main() -> None:
    """Entry point of the program."""
    outcome = Outcome()
    try:
        settings = read_settings(Path(sys.argv[1]))
        renew_at = asyncio.run(provide_identity(settings, now=dt.datetime.now(dt.UTC)))
        outcome = Outcome(renew_at=renew_at)
    except (EnrolmentError, SettingsError, ServiceError) as obstacle:
        outcome = Outcome(obstacle=str(obstacle))
    sys.stdout.buffer.write(msgspec.json.encode(outcome))


if __name__ == "__main__":
    main()
