"""Lets callers in by their API tokens, and notes in the audit log, which a flood cannot fill, who has no valid one."""

from __future__ import annotations

from common.errors import NotAuthenticatedError
from controller.audit import Audit
from controller.callers import Caller
from controller.identity.tokens import ApiTokens


class Admission:
    """REST and gRPC both ask here."""

    def __init__(self, tokens: ApiTokens, audit: Audit) -> None:
        self._tokens = tokens
        self._audit = audit

    def admit(self, authorization: str, *, remote_address: str) -> Caller:
        """The caller behind an `Authorization` header; raises as ApiTokens.authenticate."""
        try:
            return self._tokens.authenticate(authorization, remote_address=remote_address)
        except NotAuthenticatedError as refusal:
            self._audit.turn_away(remote_address, refusal.reason)
            raise
