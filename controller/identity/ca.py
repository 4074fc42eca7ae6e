"""The controller's certificate authority: made on the first start, signs for the controller, agents and clients.

The names in a certificate are the signer's decision alone; of a signing request only the public key is used. Key
identifiers are in every certificate because Python 3.13 and newer verify with VERIFY_X509_STRICT.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from common.credentials import (
    CONTROLLER_URI,
    Identity,
    agent_name,
    agent_uri,
    client_uri,
    controller_name,
    key_to_pem,
    new_key,
)
from common.files import private_directory, write_atomically
from controller.clock import Clock, utc_now
from controller.identity.locking import locked
from controller.identity.signing_requests import PublicKey

AUTHORITY_LIFETIME = dt.timedelta(days=3650)
PROGRAM_LIFETIME = dt.timedelta(days=30)
"""Of the controller and of agents, which renew by themselves after two thirds of it."""
CLIENT_LIFETIME = dt.timedelta(days=365)
_CLOCK_SKEW = dt.timedelta(minutes=5)


class AuthorityError(Exception):
    """The CA's files cannot be used; the text says which and why."""


class CertificateAuthority:
    """A P-256 key, its certificate, and what they sign."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate, *, clock: Clock = utc_now):
        self.certificate = certificate
        self._key = key
        self._clock = clock

    @classmethod
    def open(cls, directory: Path, *, clock: Clock = utc_now) -> CertificateAuthority:
        """The CA in a directory, made when there is none; of two processes that start at once one makes it.

        The certificate is written last, so a key without one is what a crash left and is made anew.

        Raises:
            AuthorityError: the files are there and cannot be used.
        """
        key_path, certificate_path = directory / "ca.key", directory / "ca.crt"
        with locked(private_directory(directory) / "lock"):
            if not certificate_path.exists():
                key = new_key()
                write_atomically(key_path, key_to_pem(key))
                write_atomically(certificate_path, _to_pem(_self_signed(key, clock())), mode=0o644)
        try:
            loaded = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
            certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
        except (OSError, ValueError) as failure:
            raise AuthorityError(f"The CA in {directory} cannot be read: {failure}.") from failure
        if not isinstance(loaded, ec.EllipticCurvePrivateKey) or loaded.public_key() != certificate.public_key():
            raise AuthorityError(f"{key_path} and {certificate_path} do not belong together.")
        return cls(loaded, certificate, clock=clock)

    @property
    def pem(self) -> bytes:
        return _to_pem(self.certificate)

    def issue_controller(self) -> Identity:
        """A new key and certificate for the controller itself; the CA's certificate is in the chain, so that an agent
        that has only its fingerprint can check it."""
        key = new_key()
        leaf = self._sign(
            key.public_key(), dns=controller_name(), uri=CONTROLLER_URI, is_server=True, lifetime=PROGRAM_LIFETIME
        )
        return Identity(key=key_to_pem(key), certificate=_to_pem(leaf) + self.pem, authorities=self.pem)

    def issue_agent(self, app_id: str, public_key: PublicKey) -> Identity:
        """For an agent: it serves, and calls the controller to renew. Without the key, which the agent keeps."""
        leaf = self._sign(
            public_key, dns=agent_name(app_id), uri=agent_uri(app_id), is_server=True, lifetime=PROGRAM_LIFETIME
        )
        return Identity(key=b"", certificate=_to_pem(leaf), authorities=self.pem)

    def issue_client(self, name: str) -> Identity:
        """A new key and certificate for a program, or a person who debugs."""
        key = new_key()
        leaf = self._sign(key.public_key(), dns=None, uri=client_uri(name), is_server=False, lifetime=CLIENT_LIFETIME)
        return Identity(key=key_to_pem(key), certificate=_to_pem(leaf), authorities=self.pem)

    def _sign(
        self, public_key: PublicKey, *, dns: str | None, uri: str, is_server: bool, lifetime: dt.timedelta
    ) -> x509.Certificate:
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri)]
        if dns is not None:
            names.append(x509.DNSName(dns))
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if is_server else [])]
        now = self._clock()
        authority = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _CLOCK_SKEW)
            .not_valid_after(min(now + lifetime, self.certificate.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=True)  # RFC 5280: with an empty subject
            .add_extension(_key_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority), critical=False)
            .sign(self._key, hashes.SHA256())
        )


def _self_signed(key: ec.EllipticCurvePrivateKey, now: dt.datetime) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Mathison Data CA")])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + AUTHORITY_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(key, hashes.SHA256())
    )


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _to_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
