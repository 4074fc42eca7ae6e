"""A staged folder of n8n made ready for the n8n that takes it: the key found, the database encrypted again, told."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.archives.members import SQLITE_SIDECARS
from agent.engines.n8n.contents import REQUIRED_TABLES
from agent.engines.n8n.encryption import fingerprint_of
from agent.engines.n8n.facts import Facts
from agent.engines.n8n.folder import StagedKey, take_key, write_config
from agent.engines.n8n.preparations import Prepared, Request
from agent.engines.n8n.preparing import prepare_file
from agent.engines.n8n.sealing import unseal
from agent.engines.n8n.settings import N8nSettings
from agent.engines.n8n.wishes import ImportWishes
from agent.engines.sqlite import absorb_changes, check_database
from agent.engines.tree import StagingArea, require_room
from agent.limits import Limits
from common.errors import ArchiveIncompatibleError, ArchiveWrongKindError, NoSpaceError
from common.headers import ArchiveHeader

_DEFAULT_DATABASE = "database.sqlite"


@dataclass(frozen=True)
class Target:
    """The n8n that takes an import: its key, and what it has now."""

    key: str
    facts: Facts


async def make_ready(
    staged: Path,
    header: ArchiveHeader | None,
    target: Target,
    *,
    settings: N8nSettings,
    wishes: ImportWishes,
    limits: Limits,
) -> Prepared:
    """Turn what was unpacked into a folder that this n8n starts on.

    Raises:
        ArchiveWrongKindError: there is no database in it.
        ArchiveIncompatibleError: of a newer n8n, of one on PostgreSQL, or its key is missing.
        ArchiveDamagedError, ArchiveTruncatedError: the database is not whole.
    """
    database = await asyncio.to_thread(_found_database, staged, header, settings.database_file)
    staged_key = await asyncio.to_thread(take_key, staged)
    if any(Path(f"{database}{ending}").exists() for ending in SQLITE_SIDECARS):
        await absorb_changes(database)
    await check_database(database, required_tables=REQUIRED_TABLES)
    keys = await _keys(staged_key, header, target, wishes)
    request = Request(
        keys=keys,
        target_key=target.key,
        known_migrations=target.facts.migrations,
        without_credentials=wishes.without_credentials,
        deactivate_workflows=wishes.deactivate_workflows,
    )
    prepared = await prepare_file(database, request, most_bytes=limits.content_bytes)
    await asyncio.to_thread(write_config, settings, staged)
    return prepared


async def place_database(
    area: StagingArea, chunks: AsyncIterator[bytes], name: str, owner: tuple[int, int], limits: Limits
) -> None:
    """Stage an upload that is nothing but the database.

    Raises:
        NoSpaceError: the volume has no room for it.
    """
    descriptor = area.create_file(name)
    try:
        async for chunk in chunks:
            require_room(area.new, len(chunk), limits)
            await asyncio.to_thread(_write_all, descriptor, chunk)
        with contextlib.suppress(PermissionError):
            os.fchown(descriptor, *owner)
    except OSError as failure:
        raise NoSpaceError(f"The upload could not be stored on the volume: {failure.strerror}.") from failure
    finally:
        os.close(descriptor)
    (area.new.parent / name).rename(area.new / name)


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
    return list(dict.fromkeys(key for key in (told, target.key) if key))


def changes(now: Mapping[str, int], prepared: Prepared) -> tuple[str, ...]:
    """What an import would change, in sentences."""
    after = prepared.counts
    sentences = [
        f"{_told(after)} take the place of {_told(now)}.",
    ]
    if prepared.secrets:
        sentences.append(f"Encrypted again with the key of this n8n: {_number(prepared.secrets, 'secret')}.")
    if prepared.deactivated:
        sentences.append(f"Switched off: {_number(prepared.deactivated, 'active workflow')}.")
    return tuple(sentences)


def warnings(prepared: Prepared, known: list[str], wishes: ImportWishes) -> list[str]:
    """What to know before an import, in sentences."""
    found = []
    if prepared.emptied:
        found.append(
            f"The secrets are left out: {_number(prepared.emptied, 'credential')} without content, under the same "
            "names, and no second factors."
        )
    elif prepared.unreadable:
        named = ", ".join(prepared.unreadable[:3])
        found.append(
            f"Not readable where the data comes from either: {_number(len(prepared.unreadable), 'secret')} ({named})."
        )
    active = prepared.counts.get("active_workflows", 0)
    if active and not wishes.deactivate_workflows:
        found.append(
            f"What is active fires here as soon as n8n starts: {_number(active, 'workflow')}. If the archive's n8n "
            "still runs, both do: switch that one off, or import with the option deactivate_workflows=true."
        )
    if prepared.waiting:
        found.append(f"{_number(prepared.waiting, 'waiting execution')} will go on here when the time has come.")
    if older := len(set(known) - set(prepared.migrations)):
        found.append(f"The data is of an older n8n: this one makes {_number(older, 'migration')} when it starts.")
    if prepared.counts.get("users"):
        found.append("Users, their passwords and their sessions are those of the n8n that the data comes from.")
    return found


def _found_database(staged: Path, header: ArchiveHeader | None, name: str) -> Path:
    """The staged database, under the name that this n8n looks for."""
    told = header.details.get("database", "") if header else ""
    if header is not None and header.details.get("database_type", "sqlite") != "sqlite":
        raise ArchiveIncompatibleError(
            "The archive is of an n8n on PostgreSQL, and this one keeps its data in SQLite.",
            next_step="Import it into an n8n on PostgreSQL, or move workflows and credentials with n8n's own export.",
        )
    for candidate in (told, name, _DEFAULT_DATABASE):
        if candidate and "/" not in candidate and (staged / candidate).is_file():
            if (staged / candidate).is_symlink():
                break
            for ending in ("", *SQLITE_SIDECARS):
                if (staged / f"{candidate}{ending}").exists() and candidate != name:
                    (staged / f"{candidate}{ending}").rename(staged / f"{name}{ending}")
            return staged / name
    raise ArchiveWrongKindError(
        f"The archive holds no database of n8n: there is no file {name} at its top.",
        next_step="Pack the content of n8n's folder (.n8n) itself, not the folder, or export with this program.",
    )


def _write_all(descriptor: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(descriptor, view) :]


def _told(counts: Mapping[str, int]) -> str:
    workflows, credentials, executions = (
        _number(counts.get(f"{what}s", 0), what) for what in ("workflow", "credential", "execution")
    )
    return f"{workflows} ({counts.get('active_workflows', 0)} active), {credentials}, {executions}"


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
