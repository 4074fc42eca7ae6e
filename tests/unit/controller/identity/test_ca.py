"""The CA: certificates that strict verifiers take, made once, by one process."""

from __future__ import annotations

import datetime as dt
import stat
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID

from common.credentials import (
    CONTROLLER_URI,
    agent_name,
    agent_uri,
    client_uri,
    controller_name,
    key_to_pem,
    new_key,
    signing_request,
)
from common.errors import InvalidRequestError
from controller.identity.ca import AuthorityError, CertificateAuthority
from controller.identity.own import OwnIdentity
from controller.identity.signing_requests import public_key_digest, public_key_of

NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> dt.datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def authority(tmp_path: Path, clock: Clock) -> CertificateAuthority:
    return CertificateAuthority.open(tmp_path / "ca", clock=clock)


def policy(authority: CertificateAuthority, at: dt.datetime = NOW) -> verification.PolicyBuilder:
    return verification.PolicyBuilder().store(verification.Store([authority.certificate])).time(at)


def uris_of(certificate: x509.Certificate) -> list[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def test_the_authority_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    made = CertificateAuthority.open(tmp_path / "ca")
    again = CertificateAuthority.open(tmp_path / "ca")

    assert made.certificate == again.certificate
    assert stat.S_IMODE((tmp_path / "ca").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "ca" / "ca.key").stat().st_mode) == 0o600
    assert {path.name for path in (tmp_path / "ca").iterdir()} == {"ca.key", "ca.crt", "lock"}


def open_and_tell(directory: Path) -> bytes:
    return CertificateAuthority.open(directory).pem


def test_processes_that_start_at_once_make_one_authority(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        made = set(pool.map(open_and_tell, [tmp_path / "ca"] * 4))

    assert len(made) == 1


def test_a_key_without_a_certificate_is_what_a_crash_left(tmp_path: Path) -> None:
    (tmp_path / "ca").mkdir()
    (tmp_path / "ca" / "ca.key").write_bytes(b"half a key")

    made = CertificateAuthority.open(tmp_path / "ca")

    assert CertificateAuthority.open(tmp_path / "ca").pem == made.pem


def test_a_certificate_without_its_key_is_an_error_and_is_not_replaced(tmp_path: Path) -> None:
    pem = CertificateAuthority.open(tmp_path / "ca").pem
    (tmp_path / "ca" / "ca.key").unlink()

    with pytest.raises(AuthorityError, match=r"ca"):
        CertificateAuthority.open(tmp_path / "ca")
    assert (tmp_path / "ca" / "ca.crt").read_bytes() == pem


def test_a_key_of_another_authority_is_an_error(tmp_path: Path) -> None:
    CertificateAuthority.open(tmp_path / "ca")
    (tmp_path / "ca" / "ca.key").write_bytes(key_to_pem(new_key()))

    with pytest.raises(AuthorityError, match="belong together"):
        CertificateAuthority.open(tmp_path / "ca")


def test_an_agents_certificate_serves_under_its_name_and_calls_under_its_uri(authority: CertificateAuthority) -> None:
    key = new_key()

    leaf = authority.issue_agent("shop.db", key.public_key()).leaf

    policy(authority).build_server_verifier(x509.DNSName(agent_name("shop.db"))).verify(leaf, [])
    client = policy(authority).build_client_verifier().verify(leaf, [])
    assert client.subjects is not None
    assert uris_of(leaf) == [agent_uri("shop.db")]
    assert leaf.public_key() == key.public_key()
    assert leaf.not_valid_after_utc == NOW + dt.timedelta(days=30)


def test_a_certificate_serves_under_no_other_name(authority: CertificateAuthority) -> None:
    leaf = authority.issue_agent("shop.db", new_key().public_key()).leaf

    with pytest.raises(verification.VerificationError):
        policy(authority).build_server_verifier(x509.DNSName(agent_name("shop.web"))).verify(leaf, [])


def test_the_controllers_certificate_serves_and_calls_and_brings_its_authority(
    authority: CertificateAuthority,
) -> None:
    identity = authority.issue_controller()

    leaf, shown = x509.load_pem_x509_certificates(identity.certificate)
    policy(authority).build_server_verifier(x509.DNSName(controller_name())).verify(leaf, [])
    policy(authority).build_client_verifier().verify(leaf, [])
    assert uris_of(leaf) == [CONTROLLER_URI]
    assert shown == authority.certificate


def test_a_clients_certificate_calls_for_a_year_and_serves_nothing(authority: CertificateAuthority) -> None:
    leaf = authority.issue_client("grpcurl").leaf

    policy(authority).build_client_verifier().verify(leaf, [])
    usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert uris_of(leaf) == [client_uri("grpcurl")]
    assert leaf.not_valid_after_utc == NOW + dt.timedelta(days=365)


def test_no_certificate_outlives_the_authority(authority: CertificateAuthority, clock: Clock) -> None:
    clock.now = NOW + dt.timedelta(days=3640)

    leaf = authority.issue_client("late").leaf

    assert leaf.not_valid_after_utc == authority.certificate.not_valid_after_utc


def test_our_own_identity_is_renewed_when_two_thirds_of_its_life_are_over(
    authority: CertificateAuthority, clock: Clock
) -> None:
    own = OwnIdentity(authority, clock=clock)
    first = own.current()

    clock.now = NOW + dt.timedelta(days=19)
    kept = own.current()
    clock.now = NOW + dt.timedelta(days=21)
    renewed = own.current()

    assert kept is first
    assert renewed.leaf.serial_number != first.leaf.serial_number
    assert renewed.leaf.not_valid_after_utc == clock.now + dt.timedelta(days=30)
    assert own.current() is renewed


def request_of(key: object) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.DER)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(ec.generate_private_key(ec.SECP256R1()), id="P-256"),
        pytest.param(ec.generate_private_key(ec.SECP384R1()), id="P-384"),
        pytest.param(rsa.generate_private_key(65537, 2048), id="RSA 2048"),
    ],
)
def test_usual_keys_are_signed(key: object) -> None:
    assert public_key_of(request_of(key)) == key.public_key()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"nonsense", id="nonsense"),
        pytest.param(b"\x00" * 8193, id="too large"),
        pytest.param(request_of(ec.generate_private_key(ec.SECP521R1())), id="P-521"),
        pytest.param(request_of(ec.generate_private_key(ec.SECP256K1())), id="secp256k1"),
        pytest.param(request_of(rsa.generate_private_key(65537, 1024)), id="RSA 1024"),  # noqa: S505
        pytest.param(request_of(ed25519.Ed25519PrivateKey.generate()), id="Ed25519"),
        pytest.param(signing_request(new_key())[:-1] + b"\x00", id="broken signature"),
    ],
)
def test_other_requests_are_refused(request_bytes: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        public_key_of(request_bytes)


def test_keys_are_told_apart_by_their_digest() -> None:
    first, second = new_key().public_key(), new_key().public_key()

    assert public_key_digest(first) == public_key_digest(first)
    assert public_key_digest(first) != public_key_digest(second)
