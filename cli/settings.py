"""What every command is told, by options or by the environment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """The options that every command has; None and False where they were not given."""

    url: str | None = None
    token_file: Path | None = None
    ca_file: Path | None = None
    is_json: bool = False
    shows_progress: bool | None = None
    """None: on a terminal only."""
    is_quiet: bool = False

    def over(self, before: Settings) -> Settings:
        """These, where they were given, and `before`'s where not: options may stand before a command and after it."""
        return Settings(
            url=self.url or before.url,
            token_file=self.token_file or before.token_file,
            ca_file=self.ca_file or before.ca_file,
            is_json=self.is_json or before.is_json,
            shows_progress=before.shows_progress if self.shows_progress is None else self.shows_progress,
            is_quiet=self.is_quiet or before.is_quiet,
        )
