"""Join tokens: how an agent proves once that it may have a certificate for its app."""

from __future__ import annotations

import datetime as dt
import hmac
from pathlib import Path

import msgspec
from cryptography import x509

from common.credentials import JoinToken
from common.errors import NotAuthenticatedError
from common.files import write_atomically
from controller.clock import Clock
from controller.identity.locking import locked

_KEPT_AFTER_EXPIRY = dt.timedelta(days=7)


class IssuedJoinToken(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of one join token."""

    app_id: str
    secret_sha256: str
    created_at: dt.datetime
    expires_at: dt.datetime
    used_by: str = ""
    """SHA-256 of the public key that was signed for it; empty while it is unused."""


class JoinTokens:
    """The file of all join tokens; changed by the command that makes them and by the running controller."""

    def __init__(self, path: Path, *, clock: Clock) -> None:
        self._path = path
        self._clock = clock

    def create(self, app_id: str, *, authority: x509.Certificate, lifetime: dt.timedelta) -> JoinToken:
        """A new token for one app. Those long expired are forgotten."""
        token = JoinToken.make(authority)
        now = self._clock()
        made = IssuedJoinToken(
            app_id=app_id, secret_sha256=token.secret_digest, created_at=now, expires_at=now + lifetime
        )
        with locked(self._path.with_suffix(".lock")):
            kept = [found for found in self._read() if now < found.expires_at + _KEPT_AFTER_EXPIRY]
            self._write([*kept, made])
        return token

    def redeem(self, text: str, *, app_id: str, public_key_sha256: str) -> str:
        """Use a token for one public key and return the app that it is for.

        The same key again, in the token's time, is let through: the first answer may have been lost.

        Args:
            app_id: the app that it is presented for; empty: not told.
        Raises:
            NotAuthenticatedError: malformed, unknown, expired, used with another key, or made for another app; that
                leaves it as it was.
        """
        try:
            presented = JoinToken.parse(text).secret_digest
        except ValueError as failure:
            raise _refusal("This is not a join token.") from failure
        with locked(self._path.with_suffix(".lock")):
            tokens = self._read()
            for index, token in enumerate(tokens):
                if not hmac.compare_digest(token.secret_sha256, presented):
                    continue
                if self._clock() >= token.expires_at:
                    raise _refusal(f"The join token for {token.app_id} has expired.")
                if token.used_by not in ("", public_key_sha256):
                    raise _refusal(f"The join token for {token.app_id} was used already.")
                if app_id not in ("", token.app_id):
                    raise NotAuthenticatedError(
                        f"The join token was made for {token.app_id}, and this agent is that of {app_id[:128]}. It was "
                        "not used up.",
                        next_step=f"Give it to the agent of {token.app_id}, and make one for {app_id[:128]} with "
                        "`mathison-controller join-token`.",
                    )
                if not token.used_by:
                    tokens[index] = msgspec.structs.replace(token, used_by=public_key_sha256)
                    self._write(tokens)
                return token.app_id
        raise _refusal("The join token is unknown.")

    def _read(self) -> list[IssuedJoinToken]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=list[IssuedJoinToken])
        except FileNotFoundError:
            return []

    def _write(self, tokens: list[IssuedJoinToken]) -> None:
        write_atomically(self._path, msgspec.json.format(msgspec.json.encode(tokens)) + b"\n")


def _refusal(text: str) -> NotAuthenticatedError:
    return NotAuthenticatedError(text, next_step="Make a new one with `mathison-controller join-token`.")
