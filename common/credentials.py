"""Who is who on the wire: names in certificates, key pairs for mutual TLS, and the join token that starts it all.

Two names in each certificate: a DNS name, which TLS itself checks (agents are dialled at any address, with
TARGET_NAME_OPTION), and a URI, which a server reads to see who calls. A renewed identity is used from the next
handshake on; connections that are open go on with the one before.

`cryptography` is imported only by what makes or reads certificates, and `ssl` only by what checks them: 9 and 5 MiB
that a serving agent does without.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import structlog

from common.files import private_directory, write_atomically

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

TRUST_DOMAIN = "mathison.internal"
CONTROLLER_URI = f"spiffe://{TRUST_DOMAIN}/controller"
CLIENT_URI_PREFIX = f"spiffe://{TRUST_DOMAIN}/client/"
AGENT_URI_PREFIX = f"spiffe://{TRUST_DOMAIN}/agent/"
TARGET_NAME_OPTION = "grpc.ssl_target_name_override"
"""gRPC channel option: the DNS name that the server's certificate must hold, whatever address was dialled."""

_LABEL = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_WORKSPACE = re.compile(_LABEL)
_APP_ID = re.compile(rf"{_LABEL}\.{_LABEL}")
_TOKEN = re.compile(r"mathison-join\.([A-Za-z0-9_-]{43})\.([0-9a-f]{64})")
_PEM_BLOCK = re.compile(rb"-----BEGIN [A-Z ]+-----\n.*?-----END [A-Z ]+-----\n?", re.DOTALL)
_log = structlog.get_logger(__name__)


def check_app_id(app_id: str) -> str:
    """The id itself when it is "<workspace>.<name>", both names as Kubernetes has them; else ValueError.

    Lower case only: names in certificates are compared without case, so "Shop.db" could pass for "shop.db".
    """
    if not _APP_ID.fullmatch(app_id):
        raise ValueError(
            f"{app_id!r} is not <workspace>.<name>, each of 1 to 63 lower-case letters, digits and inner '-'"
        )
    return app_id


def check_workspace(workspace: str) -> str:
    """The name itself when it can stand before the dot in an app's id; else ValueError."""
    if not _WORKSPACE.fullmatch(workspace):
        raise ValueError(f"{workspace!r} is no workspace: 1 to 63 lower-case letters, digits and inner '-'")
    return workspace


def controller_name() -> str:
    """The DNS name in the controller's certificate."""
    return f"controller.{TRUST_DOMAIN}"


def agent_name(app_id: str) -> str:
    """The DNS name in the certificate of an app's agent."""
    return f"{app_id.lower()}.agent.{TRUST_DOMAIN}"


def agent_uri(app_id: str) -> str:
    """Who an app's agent is, as a caller."""
    return AGENT_URI_PREFIX + app_id


def client_uri(name: str) -> str:
    """Who a client with a certificate of its own is, for example a person who debugs."""
    return CLIENT_URI_PREFIX + name


def new_key() -> ec.EllipticCurvePrivateKey:
    """A key on P-256: every TLS stack takes it, and it signs fast."""
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def key_to_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PKCS #8 without a passphrase, as gRPC reads it."""
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def signing_request(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PKCS #10 in DER without names: the controller decides those, this only proves that we hold the key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the certificate's DER, 64 digits of lower-case hex."""
    from cryptography.hazmat.primitives import hashes

    return certificate.fingerprint(hashes.SHA256()).hex()


@dataclass(frozen=True)
class JoinToken:
    """What an agent enrols with: a secret for the controller, and a fingerprint to know the controller by."""

    secret: str = field(repr=False)
    authority_fingerprint: str
    """SHA-256 of the CA certificate's DER, 64 digits of lower-case hex."""

    @classmethod
    def make(cls, authority: x509.Certificate) -> JoinToken:
        """A new one, with 256 random bits."""
        return cls(secret=secrets.token_urlsafe(32), authority_fingerprint=fingerprint(authority))

    @classmethod
    def parse(cls, text: str) -> JoinToken:
        """The reverse of `text`, blanks around it ignored; the ValueError for anything else does not repeat it."""
        match = _TOKEN.fullmatch(text.strip())
        if match is None:
            raise ValueError("this is not a join token: it has the form mathison-join.<43 characters>.<64 hex digits>")
        return cls(secret=match[1], authority_fingerprint=match[2])

    @property
    def text(self) -> str:
        """The token as a person passes it on. Secret; str() and repr() do not show it."""
        return f"mathison-join.{self.secret}.{self.authority_fingerprint}"

    @property
    def secret_digest(self) -> str:
        """SHA-256 of the secret in hex: what its issuer keeps instead of it."""
        return hashlib.sha256(self.secret.encode()).hexdigest()


@dataclass(frozen=True)
class Identity:
    """A private key, its certificate (leaf first) and the authorities to check others with; all PEM."""

    key: bytes = field(repr=False)
    certificate: bytes
    authorities: bytes

    @property
    def leaf(self) -> x509.Certificate:
        from cryptography import x509

        return x509.load_pem_x509_certificate(self.certificate)

    def renew_at(self) -> dt.datetime:
        """When to ask for a new certificate: after two thirds of its life."""
        start, end = self.leaf.not_valid_before_utc, self.leaf.not_valid_after_utc
        return start + (end - start) * 2 / 3

    def is_valid_at(self, moment: dt.datetime) -> bool:
        return self.leaf.not_valid_before_utc <= moment < self.leaf.not_valid_after_utc

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """For calling others as this identity."""
        return grpc.ssl_channel_credentials(self.authorities, self.key, self.certificate)

    def server_configuration(self) -> grpc.ServerCertificateConfiguration:
        """For serving as this identity."""
        return grpc.ssl_server_certificate_configuration(
            [(self.key, self.certificate)], root_certificates=self.authorities
        )


class IdentityFiles:
    """An identity in a directory of mode 0700.

    `identity.pem` holds key and certificate together, so that nobody ever sees one of them renewed and the other not;
    `authorities.pem` holds who is trusted.
    """

    def __init__(self, directory: Path, *, were_checked: Callable[[bytes, bytes], bool] | None = None) -> None:
        """
        Args:
            were_checked: whether what the two files hold was checked before, so that `load` need not.
        """
        self.directory = directory
        self._were_checked = were_checked
        self.identity_path = directory / "identity.pem"
        self.authorities_path = directory / "authorities.pem"

    def read(self) -> tuple[bytes, bytes] | None:
        """What the two files hold, as it is; None when there is nothing yet."""
        try:
            return self.identity_path.read_bytes(), self.authorities_path.read_bytes()
        except FileNotFoundError:
            return None

    def load(self) -> Identity | None:
        """What is there; None when there is nothing yet.

        Raises:
            ValueError: the files cannot be used, for example because key and certificate do not belong together.
        """
        if (found := self.read()) is None:
            return None
        pem, authorities = found
        blocks = _PEM_BLOCK.findall(pem)
        key = b"".join(block for block in blocks if b"PRIVATE KEY-----" in block)
        certificate = b"".join(block for block in blocks if block.startswith(b"-----BEGIN CERTIFICATE-----"))
        if self._were_checked is None or not self._were_checked(pem, authorities):
            self._check(authorities)
        return Identity(key=key, certificate=certificate, authorities=authorities)

    def _check(self, authorities: bytes) -> None:
        import ssl

        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.identity_path)
            context.load_verify_locations(cadata=authorities.decode("ascii"))
        except (ssl.SSLError, ValueError) as failure:
            raise ValueError(
                f"{self.directory} holds no key and certificate that belong together: {failure}"
            ) from failure

    def save(self, identity: Identity) -> None:
        """Replace what is there, durably; servers that run notice at their next handshake."""
        private_directory(self.directory)
        # Trust first: the new certificate may be signed by an authority that the old file does not name.
        write_atomically(self.authorities_path, identity.authorities, mode=0o644)
        write_atomically(self.identity_path, identity.key + identity.certificate)

    def server_credentials(self) -> grpc.ServerCredentials:
        """Mutual TLS: callers need a certificate of the authorities. Renewed files are used without a restart.

        Raises:
            ValueError: no usable identity is there yet.
        """
        renewals = _Renewals(self)
        return grpc.dynamic_ssl_server_credentials(
            renewals.load(),
            renewals,  # type: ignore[arg-type]  # None is documented: "no change"; the stubs lack it
            require_client_authentication=True,
        )


class _Renewals:
    """Notices renewed files; called by gRPC at every new connection, from a thread of its own."""

    def __init__(self, files: IdentityFiles) -> None:
        self._files = files
        self._seen: list[tuple[int, int]] = []

    def load(self) -> grpc.ServerCertificateConfiguration:
        try:
            seen = self._state()
        except FileNotFoundError as failure:
            raise ValueError(f"{failure.filename} is missing") from failure
        identity = self._files.load()
        if identity is None:
            raise ValueError(f"{self._files.directory} was emptied")
        self._seen = seen
        return identity.server_configuration()

    def __call__(self) -> grpc.ServerCertificateConfiguration | None:
        """The new configuration; None to go on with the one before."""
        try:
            return None if self._state() == self._seen else self.load()
        except (OSError, ValueError) as failure:
            _log.error(
                "The renewed certificate cannot be used; the one before stays.",
                action="renew_identity",
                error=str(failure),
            )
            return None

    def _state(self) -> list[tuple[int, int]]:
        found = [os.stat(path) for path in (self._files.identity_path, self._files.authorities_path)]
        return [(state.st_ino, state.st_mtime_ns) for state in found]
