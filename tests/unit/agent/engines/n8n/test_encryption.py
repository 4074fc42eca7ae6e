"""n8n's two forms of encryption, against what OpenSSL and n8n itself make."""

from __future__ import annotations

import hashlib
import subprocess

import pytest

from agent.engines.n8n.encryption import (
    CBC_TOKEN,
    NotReadableError,
    decrypt,
    decrypt_gcm,
    encrypt,
    encrypt_gcm,
    unwrap,
    wrap,
)

TEXTS = ["", "a", "s3cr3t-ÄÖ-€", "x" * 100_000]
OPENSSL = ["openssl", "enc", "-aes-256-cbc", "-md", "md5", "-a", "-A", "-pass", "pass:a key"]


WRONG = ("empty", "cut", "no base64", "first form", "second form")


@pytest.mark.parametrize("text", TEXTS, ids=len)
def test_both_forms_give_back_what_they_took(text: str) -> None:
    assert decrypt(encrypt(text, "key"), "key") == text
    assert decrypt_gcm(encrypt_gcm(text, bytes(range(32))), bytes(range(32))) == text
    assert unwrap(wrap(text, "key"), "key") == text
    assert unwrap(encrypt(text, "key"), "key") == text


def test_the_first_form_is_that_of_openssl() -> None:
    theirs = subprocess.run(OPENSSL, input="größe".encode(), capture_output=True, check=True).stdout.decode()
    ours = encrypt("größe", "a key").encode()

    assert decrypt(theirs, "a key") == "größe"
    assert subprocess.run([*OPENSSL, "-d"], input=ours, capture_output=True, check=True).stdout.decode() == "größe"


def test_a_key_is_taken_as_node_takes_it() -> None:
    # Buffer.from(key, "binary") keeps the lower byte of each unit: "€" is U+20AC.
    assert decrypt(encrypt("text", "k€y"), "k\xacy") == "text"


@pytest.mark.parametrize(
    "value", ["", "U2FsdGVkX1", "no base64!", encrypt("text", "another key"), wrap("text", "key")], ids=WRONG
)
def test_what_cannot_be_read_says_so(value: str) -> None:
    with pytest.raises(NotReadableError):
        decrypt(value, "key")


@pytest.mark.parametrize(
    "value", ["", "AQ==", "no base64!", encrypt("text", "key"), wrap("text", "another key")], ids=WRONG
)
def test_what_is_not_wrapped_with_the_key_says_so(value: str) -> None:
    with pytest.raises(NotReadableError):
        decrypt_gcm(value, hashlib.sha256(b"key").digest())


def test_values_are_found_in_a_text_with_the_key_that_they_name() -> None:
    first, second = encrypt("1", "key"), encrypt("2", "key")

    found = [(match["id"], match["value"]) for match in CBC_TOKEN.finditer(f'{{"a": "{first}", "b": "k-1:{second}"}}')]

    assert found == [(None, first), ("k-1", second)]
