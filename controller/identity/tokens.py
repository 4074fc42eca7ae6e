"""API tokens: who may call. Only SHA-256 digests of their secrets are kept; a secret is shown once, when it is made.

A plain digest is enough where a password would need a slow one: the secret has 256 random bits, nobody guesses it.
The running controller notices changes of the file at the next call, so a revoked token is dead at once.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path

import msgspec

from common.errors import InternalError, NotAuthenticatedError
from common.files import write_atomically
from controller.callers import Caller, Scope
from controller.clock import Clock
from controller.identity.locking import locked

PREFIX = "mathison-api."
"""Lets people and secret scanners see what it is."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")


class TokenError(Exception):
    """A command about tokens makes no sense; the text says why."""


class ApiToken(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of one token."""

    name: str
    sha256: str
    """Of the whole token as it is shown, in hex."""
    scopes: frozenset[Scope]
    workspaces: frozenset[str] | None
    """None: all."""
    created_at: dt.datetime
    expires_at: dt.datetime | None

    def is_expired(self, now: dt.datetime) -> bool:
        return self.expires_at is not None and now >= self.expires_at


class ApiTokens:
    """The file of all API tokens."""

    def __init__(self, path: Path, *, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._tokens: list[ApiToken] = []
        self._seen: tuple[int, int] | None = None

    def list(self) -> Sequence[ApiToken]:
        """All, expired ones included, in the order in which they were made. TokenError: the file is damaged."""
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            self._tokens, self._seen = [], None
            return self._tokens
        if (state := (found.st_ino, found.st_mtime_ns)) != self._seen:
            try:
                self._tokens = msgspec.json.decode(self._path.read_bytes(), type=list[ApiToken])
            except msgspec.MsgspecError as failure:
                raise TokenError(
                    f"{self._path} is damaged: {failure}. Put back a copy, or move it away and make new tokens."
                ) from failure
            self._seen = state
        return self._tokens

    def create(
        self, name: str, *, scopes: frozenset[Scope], workspaces: frozenset[str] | None, lifetime: dt.timedelta | None
    ) -> str:
        """Make a token and return it; nobody can read it again.

        Raises:
            TokenError: the name is taken or malformed, or the token would allow nothing.
        """
        if not _NAME.fullmatch(name):
            raise TokenError(f"{name!r} is no name for a token: 1 to 64 letters, digits, '_', '.', '@' and '-'.")
        if not scopes:
            raise TokenError("A token without a scope would allow nothing.")
        secret = PREFIX + secrets.token_urlsafe(32)
        now = self._clock()
        made = ApiToken(
            name=name,
            sha256=_digest(secret),
            scopes=scopes,
            workspaces=workspaces,
            created_at=now,
            expires_at=now + lifetime if lifetime is not None else None,
        )
        with locked(self._path.with_suffix(".lock")):
            tokens = self.list()
            if any(token.name == name for token in tokens):
                raise TokenError(f"There is a token named {name!r} already; revoke it first.")
            self._write([*tokens, made])
        return secret

    def revoke(self, name: str) -> None:
        """Forget a token; TokenError when there is none of this name."""
        with locked(self._path.with_suffix(".lock")):
            tokens = self.list()
            left = [token for token in tokens if token.name != name]
            if len(left) == len(tokens):
                raise TokenError(f"There is no token named {name!r}.")
            self._write(left)

    def authenticate(self, authorization: str, *, remote_address: str) -> Caller:
        """The caller behind an `Authorization` header.

        Raises:
            NotAuthenticatedError: none, of another scheme, unknown, revoked or expired.
            InternalError: the file cannot be read; nobody is let in on what it once said.
        """
        scheme, _, secret = authorization.partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise NotAuthenticatedError("This needs an API token.", next_step="Send `Authorization: Bearer <token>`.")
        try:
            tokens = self.list()
        except (OSError, TokenError) as failure:
            raise InternalError("The controller cannot read its tokens.") from failure
        digest = _digest(secret.strip())
        for token in tokens:
            if hmac.compare_digest(token.sha256, digest):
                if token.is_expired(self._clock()):
                    raise NotAuthenticatedError(f"The token {token.name!r} has expired.", next_step="Get a new one.")
                return Caller(
                    name=token.name, scopes=token.scopes, workspaces=token.workspaces, remote_address=remote_address
                )
        raise NotAuthenticatedError("The token is unknown or was revoked.", next_step="Get a new one.")

    def _write(self, tokens: Sequence[ApiToken]) -> None:
        write_atomically(self._path, msgspec.json.format(msgspec.json.encode(tokens, order="sorted")) + b"\n")


def _digest(secret: str) -> str:
    # What a caller sent may be no UTF-8, which arrives as surrogates; no token of ours has them.
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()
