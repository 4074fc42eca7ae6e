"""A staged folder of n8n made ready for the n8n that takes it: the key found, the database encrypted again, told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from agent.archives.members import SQLITE_SIDECARS, printable
from agent.engines.n8n.contents import REQUIRED_TABLES
from agent.engines.n8n.facts import OWN_PROGRAMS, Facts
from agent.engines.n8n.folder import StagedKey, take_key
from agent.engines.n8n.key_notes import fingerprint_of
from agent.engines.n8n.preparations import Prepared, Request
from agent.engines.n8n.preparing import prepare_file
from agent.engines.n8n.sealing import unseal
from agent.engines.n8n.settings import N8nSettings
from agent.engines.n8n.wishes import ImportWishes
from agent.engines.sqlite.programs import PROGRAMS, programs_of, require_known
from agent.engines.sqlite.questions import Questions
from agent.engines.sqlite.uploads import absorb_changes, check_database
from agent.engines.tree import StagingArea, spool
from agent.limits import Limits
from common.errors import ArchiveDamagedError, ArchiveIncompatibleError, ArchiveRefusedError, ArchiveWrongKindError
from common.headers import ArchiveHeader
from common.kinds import POSTGRESQL_CUSTOM, POSTGRESQL_SQL, SQLITE, TEXT, kind_of

_DEFAULT_DATABASE = "database.sqlite"
DUMP = "database.sql.gz"
"""The dump of a PostgreSQL database in an archive."""


@dataclass(frozen=True)
class Target:
    """The n8n that takes an import: its key, and what it has now."""

    key: str
    facts: Facts


async def make_file_ready(database: Path, request: Request, target: Target, *, limits: Limits) -> Prepared:
    """Turn a staged SQLite file into one that this n8n starts on.

    Raises:
        ArchiveRefusedError: it has triggers or views that neither n8n makes nor this one has.
        ArchiveIncompatibleError: of a newer n8n, or none of the keys opens it.
        ArchiveDamagedError, ArchiveTruncatedError, ArchiveWrongKindError: the database is not whole, or none.
    """
    if any(Path(f"{database}{ending}").exists() for ending in SQLITE_SIDECARS):
        await absorb_changes(database)
    found = await check_database(database, required_tables=REQUIRED_TABLES, questions=Questions(PROGRAMS))
    require_known(programs_of(found.answers.rows), OWN_PROGRAMS | target.facts.programs.keys(), "n8n")
    return await prepare_file(database, request, most_bytes=limits.content_bytes)


async def request_of(staged: Path, header: ArchiveHeader | None, target: Target, wishes: ImportWishes) -> Request:
    """What is to be done to the database of a folder that was unpacked; takes the key out of it."""
    staged_key = await asyncio.to_thread(take_key, staged)
    return Request(
        keys=await _keys(staged_key, header, target, wishes),
        target_key=target.key,
        known_migrations=target.facts.migrations,
        without_credentials=wishes.without_credentials,
        deactivate_workflows=wishes.deactivate_workflows,
        salt=secrets.token_hex(16),
    )


def look_of(request: Request) -> Request:
    """The request for a look at what the n8n has that takes the data, to be compared with it."""
    return Request(keys=[request.target_key], salt=request.salt)


def size_of(file: Path) -> int:
    """Bytes; 0 where there is no such file."""
    return file.stat().st_size if _is_file(file) else 0


def bare_name(head: bytes, settings: N8nSettings) -> str:
    """What to call an upload that is only the database, by its first bytes; empty for an archive."""
    kind = kind_of(head)
    if settings.postgresql is None:
        return settings.database_file if kind == SQLITE else ""
    is_dump = kind in (POSTGRESQL_CUSTOM, POSTGRESQL_SQL) or (kind == TEXT and head.startswith(b"--"))
    return DUMP if is_dump else ""


async def place_file(
    area: StagingArea, chunks: AsyncIterator[bytes], name: str, owner: tuple[int, int], limits: Limits
) -> None:
    """Stage an upload that is nothing but the database or its dump.

    Raises:
        NoSpaceError: there is no room for it.
    """
    descriptor = area.create_file(name)
    try:
        await spool(descriptor, chunks, area, limits)
        with contextlib.suppress(PermissionError):
            os.fchown(descriptor, *owner)
    finally:
        os.close(descriptor)
    area.move_into_new(name)


async def _keys(staged_key: StagedKey, header: ArchiveHeader | None, target: Target, wishes: ImportWishes) -> list[str]:
    """Keys that may open the archive's secrets, the likeliest first."""
    told = wishes.encryption_key or staged_key.clear
    is_own = header is not None and header.details.get("key_fingerprint") == fingerprint_of(target.key)
    if staged_key.sealed and not told and not is_own and not wishes.without_credentials:
        if not wishes.identities and not wishes.passphrase:
            raise ArchiveIncompatibleError(
                "The archive's encryption key is sealed, and nothing was given to open it.",
                next_step="Give the option passphrase or identity, or the key itself as encryption_key; or import with "
                "the option without_credentials=true: then all credentials are empty.",
            )
        told = await unseal(staged_key.sealed, identities=wishes.identities, passphrase=wishes.passphrase)
    # A key may have white space around it; a file that somebody wrote a key into, too.
    return list(dict.fromkeys(key for key in (told, told.strip(), target.key) if key))


def find_database(staged: Path, header: ArchiveHeader | None, name: str) -> Path:
    """The staged SQLite file, under the name that this n8n looks for.

    Raises:
        ArchiveWrongKindError, ArchiveIncompatibleError: there is none.
        ArchiveRefusedError: what SQLite keeps beside it is no file.
    """
    _require_type(header, "sqlite")
    told = header.details.get("database", "") if header else ""
    for candidate in (told, name, _DEFAULT_DATABASE):
        if not candidate or "/" in candidate or not _is_file(staged / candidate):
            continue
        for ending in ("", *SQLITE_SIDECARS):
            found, wanted = staged / f"{candidate}{ending}", staged / f"{name}{ending}"
            _require_plain(found, wanted)
            if candidate != name:
                # Of another database, if there is one.
                wanted.unlink(missing_ok=True)
                if _is_file(found):
                    found.rename(wanted)
        return staged / name
    raise ArchiveWrongKindError(
        f"The archive holds no database of n8n: there is no file {name} at its top.",
        next_step="Pack the content of n8n's folder (.n8n) itself, not the folder, or export with this program.",
    )


def take_dump(staged: Path, header: ArchiveHeader | None, database_file: str) -> BinaryIO:
    """The staged dump of a PostgreSQL database, opened; it has no name any more.

    Raises:
        ArchiveWrongKindError, ArchiveIncompatibleError: there is none.
        ArchiveDamagedError: it may not be read.
    """
    _require_type(header, "postgresql")
    for name in (DUMP, "database.sql", "database.dump"):
        if _is_file(staged / name):
            try:
                file = (staged / name).open("rb")
            except PermissionError as failure:
                raise ArchiveDamagedError(f"{name} in the archive is a file that its owner may not read.") from failure
            (staged / name).unlink()
            return file
    if _is_file(staged / database_file) or _is_file(staged / _DEFAULT_DATABASE):
        _require_type(ArchiveHeader(details={"database_type": "sqlite"}), "postgresql")
    raise ArchiveWrongKindError(
        f"The archive holds no database of n8n: there is no file {DUMP} at its top.",
        next_step="Export with this program, or send a dump that pg_dump made of n8n's database.",
    )


def _require_type(header: ArchiveHeader | None, wanted: str) -> None:
    found = header.details.get("database_type", wanted) if header else wanted
    if found != wanted:
        names = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
        raise ArchiveIncompatibleError(
            f"The archive is of an n8n on {names.get(found, 'another engine')}, and this one keeps its data in "
            f"{names[wanted]}.",
            next_step="Import it into an n8n on the same engine, or move workflows and credentials with n8n's own "
            "export:entities and import:entities.",
        )


def _require_plain(*paths: Path) -> None:
    """SQLite and n8n would follow a link anywhere, and get nowhere with a directory."""
    for path in paths:
        if os.path.lexists(path) and not _is_file(path):
            raise ArchiveRefusedError(
                f"{printable(path.name)} in the archive is not the file that it is in n8n's data."
            )


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()
