"""What an agent asks to have signed: only the public key in it counts."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from common.errors import InvalidRequestError

MAX_SIGNING_REQUEST_BYTES = 8 << 10
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


def public_key_of(signing_request: bytes) -> PublicKey:
    """The key of a PKCS #10 request in DER, its proof of possession checked.

    Raises:
        InvalidRequestError: too large, not a signing request, a signature that does not hold, or a kind of key that
            not every TLS library takes.
    """
    if len(signing_request) > MAX_SIGNING_REQUEST_BYTES:
        raise InvalidRequestError(f"The signing request is over {MAX_SIGNING_REQUEST_BYTES} bytes.")
    try:
        request = x509.load_der_x509_csr(signing_request)
        is_proven = request.is_signature_valid
        key = request.public_key()
    except Exception as failure:  # cryptography raises ValueError, UnsupportedAlgorithm, TypeError and its own
        raise InvalidRequestError("This is not a certificate signing request in DER.") from failure
    if not is_proven:
        raise InvalidRequestError("The signing request's own signature does not hold.")
    match key:
        case ec.EllipticCurvePublicKey(curve=ec.SECP256R1() | ec.SECP384R1()):
            return key
        case rsa.RSAPublicKey(key_size=size) if size >= 2048:
            return key
    raise InvalidRequestError("The key has to be on P-256 or P-384, or RSA of at least 2048 bits.")


def public_key_digest(key: PublicKey) -> str:
    """Tells keys apart; SHA-256 in hex."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))
    return digest.finalize().hex()
