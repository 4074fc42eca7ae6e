"""How n8n encrypts what is secret in its database: a form that 0.x to 2.x share, and one that came with 2.x.

    CBC  base64("Salted__" + 8 bytes of salt + AES-256-CBC), key and IV by OpenSSL's old derivation with MD5
    GCM  base64(0x01 + 32 bytes of salt + 16 of tag + AES-256-GCM), key and IV by HKDF-SHA256

Read in n8n-core 2.41.1 (`dist/encryption`), and proven by a server that started on what was written here. Nobody would
choose the first today, but it is what n8n reads.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.padding import PKCS7

CBC_START = "U2FsdGVkX1"
"""How every value of the first form begins: base64 of "Salted__"."""
CBC_TOKEN = re.compile(r"(?:(?P<id>[A-Za-z0-9_-]{1,36}):)?(?P<value>U2FsdGVkX1(?:[A-Za-z0-9+/]|\\/){10,}={0,2})")
"""Such a value within a text, which may be JSON with escaped slashes. What stands before its colon may name a row of
deployment_key, where keys are rotated."""
_SALTED = b"Salted__"
_GCM_VERSION = b"\x01"
_GCM_INFO = b"n8n-encryption-v1"
_GCM_OVERHEAD_BYTES = 1 + 32 + 16


class NotReadableError(ValueError):
    """A value that this key does not open, or that is none."""


def warm_up() -> None:
    """Have everything loaded that is loaded at first use: nothing can be once a child's jail is locked."""
    decrypt_gcm(encrypt_gcm("", bytes(32)), bytes(32))
    decrypt(encrypt("", ""), "")


def decrypt(value: str, key: str) -> str:
    """The text of a value in the first form."""
    raw = _from_base64(value.replace("\\/", "/"))
    if not raw.startswith(_SALTED) or len(raw) < 32 or len(raw) % 16:
        raise NotReadableError("not a value of this form")
    cipher_key, iv = _derived(key, raw[8:16])
    decryptor = Cipher(algorithms.AES(cipher_key), modes.CBC(iv)).decryptor()
    unpadder = PKCS7(128).unpadder()
    try:
        padded = decryptor.update(raw[16:]) + decryptor.finalize()
        return (unpadder.update(padded) + unpadder.finalize()).decode()
    except ValueError as failure:
        raise NotReadableError("another key") from failure


def encrypt(text: str, key: str) -> str:
    """A text as a value in the first form."""
    salt = os.urandom(8)
    cipher_key, iv = _derived(key, salt)
    padder = PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES(cipher_key), modes.CBC(iv)).encryptor()
    padded = padder.update(text.encode()) + padder.finalize()
    return base64.b64encode(_SALTED + salt + encryptor.update(padded) + encryptor.finalize()).decode()


def unwrap(value: str, key: str) -> str:
    """What a row of deployment_key holds, wrapped by the instance's key."""
    return decrypt(value, key) if value.startswith(CBC_START) else decrypt_gcm(value, _wrapping_key(key))


def wrap(text: str, key: str) -> str:
    """The opposite of `unwrap`, in the second form."""
    return encrypt_gcm(text, _wrapping_key(key))


def decrypt_gcm(value: str, key: bytes) -> str:
    """The text of a value in the second form."""
    raw = _from_base64(value)
    if not raw.startswith(_GCM_VERSION) or len(raw) < _GCM_OVERHEAD_BYTES:
        raise NotReadableError("not a value of this form")
    salt, tag, encrypted = raw[1:33], raw[33:49], raw[49:]
    cipher_key, iv = _derived_gcm(key, salt)
    try:
        return AESGCM(cipher_key).decrypt(iv, encrypted + tag, None).decode()
    except (InvalidTag, ValueError) as failure:
        raise NotReadableError("another key") from failure


def encrypt_gcm(text: str, key: bytes) -> str:
    """A text as a value in the second form."""
    salt = os.urandom(32)
    cipher_key, iv = _derived_gcm(key, salt)
    sealed = AESGCM(cipher_key).encrypt(iv, text.encode(), None)
    return base64.b64encode(_GCM_VERSION + salt + sealed[-16:] + sealed[:-16]).decode()


def _derived(key: str, salt: bytes) -> tuple[bytes, bytes]:
    """EVP_BytesToKey with MD5 and one round: 32 bytes of key, 16 of IV."""
    # Node's "binary": the lower byte of each UTF-16 unit.
    password = key.encode("utf-16-le")[::2] + salt
    blocks = [b""]
    for _ in range(3):
        blocks.append(hashlib.md5(blocks[-1] + password).digest())  # noqa: S324  # n8n's choice, not ours
    return blocks[1] + blocks[2], blocks[3]


def _derived_gcm(key: bytes, salt: bytes) -> tuple[bytes, bytes]:
    material = HKDF(SHA256(), 44, salt, _GCM_INFO).derive(key)
    return material[:32], material[32:]


def _wrapping_key(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _from_base64(value: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except ValueError as failure:
        raise NotReadableError("not base64") from failure
