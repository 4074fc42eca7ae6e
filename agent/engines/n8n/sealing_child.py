"""The child that seals a short secret into an age file, or opens one; its request comes by stdin, since it is secret.

A process of its own, because age's passphrases cost half a gibibyte of memory for some seconds (scrypt; pyrage 1.4
chooses what takes a second), and because a sealed file is an upload.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import msgspec
import pyrage  # type: ignore[import-untyped]

from agent.engines.n8n.seals import Answer, Request
from agent.jail import enter_from_argv
from common.errors import ArchiveDamagedError, ArchiveIncompatibleError, InvalidRequestError, ServiceError

MAGIC = b"age-encryption.org/"


def main() -> None:
    """Exit status 0 whatever is wrong: the answer says it."""
    enter_from_argv()
    request = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Request)
    try:
        answer = Answer(content=_open(request) if request.opens else _seal(request))
    except ServiceError as error:
        answer = Answer(reason=error.reason, text=error.text, next_step=error.next_step)
    sys.stdout.buffer.write(msgspec.msgpack.encode(answer))


def _seal(request: Request) -> bytes:
    if not request.recipients:
        return bytes(pyrage.passphrase.encrypt(request.content, request.passphrase))
    try:
        recipients = [pyrage.x25519.Recipient.from_str(text) for text in request.recipients]
    except pyrage.RecipientError as failure:
        raise InvalidRequestError(
            f"A recipient for the sealed key is none of age's: {failure}.",
            next_step="Make one with age-keygen; it begins with age1.",
        ) from failure
    return bytes(pyrage.encrypt(request.content, recipients))


def _open(request: Request) -> bytes:
    try:
        identities = [pyrage.x25519.Identity.from_str(text) for text in request.identities]
    except pyrage.IdentityError as failure:
        raise InvalidRequestError(
            "The identity for the sealed key is none of age's.", next_step="It begins with AGE-SECRET-KEY-1."
        ) from failure
    attempts: list[Callable[[], bytes]] = []
    if identities:
        attempts.append(lambda: pyrage.decrypt(request.content, identities))
    if request.passphrase:
        attempts.append(lambda: pyrage.passphrase.decrypt(request.content, request.passphrase))
    if not request.content.startswith(MAGIC):
        raise ArchiveDamagedError("The sealed encryption key in the archive is no age file.")
    for attempt in attempts:
        try:
            return attempt()
        except pyrage.DecryptError:
            continue
    raise ArchiveIncompatibleError(
        "The sealed encryption key in the archive does not open with what was given.",
        next_step="Give the passphrase (option passphrase) or the identity (option identity) that it was sealed for, "
        "or the key itself (option encryption_key).",
    )


if __name__ == "__main__":
    main()
