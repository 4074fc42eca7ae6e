"""Where an n8n keeps what: the recipe's table in the agent's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from agent.engines.configured import checked, data_directory, read_secret


class N8nSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How n8n's data is reached. Files with secrets are read each time, so they may be rotated."""

    directory: str = ""
    """n8n's folder, `.n8n` in its user's home, as the agent sees it; may be left out for an n8n on PostgreSQL that
    keeps nothing there."""
    postgresql: dict[str, Any] | None = None
    """n8n's database, as recipe postgresql has it (DB_TYPE=postgresdb); not given: it is SQLite."""
    schema: str = "public"
    """The schema of its tables there (DB_POSTGRESDB_SCHEMA)."""
    database_file: str = "database.sqlite"
    """Its name there (DB_SQLITE_DATABASE)."""
    encryption_key_file: str = ""
    """Holds N8N_ENCRYPTION_KEY; empty: n8n keeps its key in the file `config` of its folder."""
    exclude: tuple[str, ...] = ()
    """Patterns of what is not exported, as in recipe volume."""
    seal_recipients: tuple[str, ...] = ()
    """age's public keys for which the encryption key in an export is sealed where the caller names none."""
    seal_passphrase_file: str = ""
    """Holds a passphrase for the same, which also opens sealed keys; costs 600 MiB of memory for a moment."""
    identity_file: str = ""
    """age identities, one a line, that open sealed keys in imports."""

    def __post_init__(self) -> None:
        if "/" in self.database_file or self.database_file in ("", ".", ".."):
            raise ValueError("`database_file` has to be the name of a file in n8n's folder")
        if not all(self.exclude):
            raise ValueError("a pattern in `exclude` is empty")

    @property
    def folder(self) -> Path | None:
        """None: n8n keeps nothing in a folder."""
        return Path(self.directory) if self.directory else None

    def passphrase(self) -> str:
        """The one in the file; empty where there is none."""
        return read_secret(self.seal_passphrase_file)

    def identities(self) -> list[str]:
        """Those in the file, which may hold comments as age-keygen writes them."""
        lines = (line.strip() for line in read_secret(self.identity_file).splitlines())
        return [line for line in lines if line and not line.startswith("#")]


def read_settings(table: Mapping[str, object]) -> N8nSettings:
    """Check a table of the configuration; InvalidRequestError names what is wrong."""
    settings = checked(table, N8nSettings, recipe="n8n")
    if settings.directory or settings.postgresql is None:
        data_directory(settings.directory, of="n8n's folder")
    return settings
