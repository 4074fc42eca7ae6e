"""How MinIO's admin API encrypts what holds secrets: with a key made from the caller's own secret key.

Salt (32 bytes), algorithm, nonce (8), then pieces of 16 KiB in AES-256-GCM (the format "sio" of the Go package
secure-io). Requests use PBKDF2, which every release reads; MinIO's own answers use Argon2 with 64 MiB of memory, so
nothing here asks for such an answer.
"""

from __future__ import annotations

import hashlib
import os

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_PBKDF2_AES_GCM = 2
_ITERATIONS = 8192
_PIECE_BYTES = 16384
_LAST = b"\x80"


def encrypt(secret_key: str, content: bytes) -> bytes:
    """A request's body."""
    salt, nonce = os.urandom(32), os.urandom(8)
    cipher = AESGCM(hashlib.pbkdf2_hmac("sha256", secret_key.encode(), salt, _ITERATIONS, 32))
    associated = cipher.encrypt(_nonce(nonce, 0), b"", b"")
    pieces = [content[start : start + _PIECE_BYTES] for start in range(0, len(content), _PIECE_BYTES)] or [b""]
    sealed = [
        cipher.encrypt(_nonce(nonce, number), piece, (_LAST if number == len(pieces) else b"\0") + associated)
        for number, piece in enumerate(pieces, 1)
    ]
    return b"".join((salt, bytes([_PBKDF2_AES_GCM]), nonce, *sealed))


def _nonce(nonce: bytes, number: int) -> bytes:
    return nonce + number.to_bytes(4, "little")
