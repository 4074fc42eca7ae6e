from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from cryptography import x509

from common.credentials import (
    Identity,
    IdentityFiles,
    JoinToken,
    agent_name,
    agent_uri,
    check_app_id,
    fingerprint,
    key_to_pem,
    new_key,
    signing_request,
)
from controller.identity.ca import CertificateAuthority


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    return CertificateAuthority.open(tmp_path / "authority")


@pytest.fixture
def files(tmp_path: Path) -> IdentityFiles:
    return IdentityFiles(tmp_path / "identity")


def test_names_in_certificates_come_from_the_app_id() -> None:
    assert agent_name("shop.db") == "shop.db.agent.mathison.internal"
    assert agent_uri("shop.db") == "spiffe://mathison.internal/agent/shop.db"


@pytest.mark.parametrize("app_id", ["shop.db", "a.b", "my-shop.my-db-2", "x" * 63 + "." + "y" * 63])
def test_app_ids_are_two_kubernetes_names(app_id: str) -> None:
    assert check_app_id(app_id) == app_id


@pytest.mark.parametrize(
    "app_id", ["", "shop", "shop.", ".db", "shop.db.x", "Shop.db", "shop.d b", "-a.b", "a-.b", "x" * 64 + ".y", "a.b\n"]
)
def test_other_app_ids_are_refused(app_id: str) -> None:
    with pytest.raises(ValueError, match="is not <workspace>"):
        check_app_id(app_id)


def test_a_join_token_is_read_back_with_blanks_around_it(authority: CertificateAuthority) -> None:
    token = JoinToken.make(authority.certificate)

    assert JoinToken.parse(f" {token.text}\n") == token
    assert token.authority_fingerprint == fingerprint(authority.certificate)
    assert token.text.startswith("mathison-join.")


def test_a_join_token_does_not_show_its_secret(authority: CertificateAuthority) -> None:
    token = JoinToken.make(authority.certificate)

    assert token.secret not in f"{token} {token!r} {token.secret_digest}"


@pytest.mark.parametrize("text", ["", "mathison-join.short.00", "mathison-join." + "a" * 43 + "." + "g" * 64])
def test_what_is_no_join_token_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ValueError, match="not a join token") as caught:
        JoinToken.parse(text)

    assert "short" not in str(caught.value)


def test_an_identity_is_read_back_and_only_its_owner_can_read_the_key(
    authority: CertificateAuthority, files: IdentityFiles
) -> None:
    identity = authority.issue_controller()

    files.save(identity)

    assert files.load() == identity
    assert files.identity_path.stat().st_mode & 0o777 == 0o600
    assert files.directory.stat().st_mode & 0o777 == 0o700
    assert "PRIVATE" not in repr(identity)


def test_no_identity_is_none(files: IdentityFiles) -> None:
    assert files.load() is None


@pytest.mark.parametrize("damage", ["another key", "half a file", "no key", "damaged authorities"])
def test_an_identity_that_cannot_be_used_is_refused(
    authority: CertificateAuthority, files: IdentityFiles, damage: str
) -> None:
    identity = authority.issue_controller()
    files.save(identity)
    match damage:
        case "another key":
            files.identity_path.write_bytes(key_to_pem(new_key()) + identity.certificate)
        case "half a file":
            files.identity_path.write_bytes(files.identity_path.read_bytes()[:300])
        case "no key":
            files.identity_path.write_bytes(identity.certificate)
        case _:
            files.authorities_path.write_bytes(b"nothing")

    with pytest.raises(ValueError, match="no key and certificate that belong together"):
        files.load()


def test_a_certificate_is_due_after_two_thirds_of_its_life(authority: CertificateAuthority) -> None:
    identity = authority.issue_controller()
    start, end = identity.leaf.not_valid_before_utc, identity.leaf.not_valid_after_utc

    assert abs((identity.renew_at() - start) / (end - start) - 2 / 3) < 1e-6
    assert identity.is_valid_at(dt.datetime.now(dt.UTC))
    assert not identity.is_valid_at(end)


def test_a_signing_request_proves_the_key_and_asks_for_no_name() -> None:
    key = new_key()

    request = x509.load_der_x509_csr(signing_request(key))

    assert request.is_signature_valid
    assert request.public_key() == key.public_key()
    assert (len(request.subject), len(request.extensions)) == (0, 0)


def test_server_credentials_need_an_identity(files: IdentityFiles) -> None:
    with pytest.raises(ValueError, match=r"identity\.pem is missing"):
        files.server_credentials()


def test_an_identity_without_a_key_cannot_be_saved_and_used(
    authority: CertificateAuthority, files: IdentityFiles
) -> None:
    issued = authority.issue_agent("shop.db", new_key().public_key())
    files.save(Identity(key=b"", certificate=issued.certificate, authorities=issued.authorities))

    with pytest.raises(ValueError, match="no key and certificate that belong together"):
        files.load()
