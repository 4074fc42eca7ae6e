"""Who asks and what they may do: the scopes and workspaces of the token that a caller showed."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from common.errors import NotPermittedError


class Scope(enum.StrEnum):
    """What a token allows; none includes another."""

    READ = "read"
    EXPORT = "export"
    IMPORT = "import"


@dataclass(frozen=True)
class Caller:
    """One authenticated caller."""

    name: str
    """Of the token, for the audit log."""
    scopes: frozenset[Scope]
    workspaces: frozenset[str] | None
    """None: all, those to come included."""
    remote_address: str = ""

    def may_see(self, workspace: str) -> bool:
        return self.workspaces is None or workspace in self.workspaces

    def require(self, scope: Scope) -> None:
        """Raises NotPermittedError unless the caller has the scope."""
        if scope not in self.scopes:
            raise NotPermittedError(
                f"The token {self.name!r} lacks the scope {scope.value!r}.", next_step="Use a token that has it."
            )
