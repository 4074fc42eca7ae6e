"""What lies where in the state directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from controller.clock import utc_now
from controller.identity.join_tokens import JoinTokens
from controller.identity.tokens import ApiTokens


@dataclass(frozen=True)
class State:
    """The directory, mode 0700; the same for the running controller and for commands beside it."""

    directory: Path

    @property
    def authority(self) -> Path:
        return self.directory / "ca"

    @property
    def audit(self) -> Path:
        return self.directory / "audit.log"

    @property
    def addresses(self) -> Path:
        return self.directory / "addresses.json"

    def tokens(self) -> ApiTokens:
        return ApiTokens(self.directory / "tokens.json", clock=utc_now)

    def join_tokens(self) -> JoinTokens:
        return JoinTokens(self.directory / "join_tokens.json", clock=utc_now)
