"""Which Uptime Kuma a database belongs to, told from what is in it, and whether another one can take it.

No version of the app writes down its number. What tells them apart is what was done to the schema: names of patches in
version 1, names of migrations in version 2, and no release ever dropped one. The apps themselves refuse nothing: 1.23
starts on a database of 2.5 and loses statistics, so it is refused here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agent.archives.members import printable
from agent.engines.sqlite.programs import Programs, programs_of, warnings_of
from agent.engines.table_parts import Kind
from common.errors import ArchiveIncompatibleError, ArchiveWrongKindError, SourceUnreadableError
from common.wording import counted

REQUIRED_TABLES = ("heartbeat", "monitor", "notification", "setting", "user")
COUNTED = {
    "monitors": "monitor",
    "heartbeats": "heartbeat",
    "notifications": "notification",
    "status_pages": "status_page",
    "maintenances": "maintenance",
    "users": "user",
}
"""Names of counts and the tables whose rows they are."""
KINDS = {
    "monitors": Kind("monitor", ("id", "name")),
    "heartbeats": Kind("heartbeat"),
    "notifications": Kind("notification", ("id", "name")),
    "tags": Kind("tag", ("id", "name")),
    "status_pages": Kind("status_page", ("id", "slug")),
    "maintenances": Kind("maintenance", ("id", "title")),
    "users": Kind("user", ("id", "username")),
}
"""What a preview compares. Ids alone tell nothing: every app counts from 1."""
BEATS_A_SECOND = 2800
"""That version 2 works through at its first start on data of version 1 (measured with 2.5.3: 151,000 in 54 s)."""
_MIGRATING = "migrating"
_NAMED = 5

_RELEASES_1 = (
    (18, "1.17.0"),
    (22, "1.18.0"),
    (24, "1.19.0"),
    (27, "1.20.0"),
    (31, "1.21.0"),
    (32, "1.21.2"),
    (33, "1.22.0"),
    (40, "1.23.0"),
    (41, "1.23.3"),
    (42, "1.23.4"),
    (43, "1.23.5"),
    (44, "1.23.12"),
)
_RELEASES_2 = (
    (28, "2.0.0"),
    (47, "2.1.0"),
    (48, "2.1.1"),
    (50, "2.4.0"),
    (54, "2.5.0"),
    (55, "2.5.1"),
)
"""How many patches or migrations each release has that added some, from the app's history."""

Rows = Mapping[str, Sequence[Sequence[object]] | None]
"""What queries gave, by name; None where a table is not there."""


ASKED = {"migrations": "knex_migrations", "lock": "knex_migrations_lock", "settings": "setting", **COUNTED}
"""The table that each of `queries` reads."""


def queries(quote: str = '"') -> dict[str, str]:
    """What `facts_of` has to know of a database; `quote` is what the engine puts around names."""

    def named(name: str) -> str:
        return f"{quote}{name}{quote}"

    names = "'databasePatchedFiles', 'migrateAggregateTableState'"
    return {
        "migrations": "SELECT name FROM knex_migrations ORDER BY id",
        "lock": "SELECT is_locked FROM knex_migrations_lock",
        "settings": f"SELECT {named('key')}, value FROM setting WHERE {named('key')} IN ({names})",  # noqa: S608
        **{count: f"SELECT count(*) FROM {named(table)}" for count, table in COUNTED.items()},  # noqa: S608
    }


@dataclass(frozen=True)
class KumaFacts:
    """What a database says of the app that wrote it.

    Attributes:
        generation: 1 or 2.
        steps: names of the patches (1) or migrations (2) that were done to it.
        is_migrating: the app was at work on the schema, or was interrupted at it.
        programs: triggers and views, where that was asked; the app makes none.
        bytes_beside: size of a database that is not among the app's files.
    """

    generation: int
    steps: frozenset[str]
    last_step: str = ""
    is_migrating: bool = False
    counts: Mapping[str, int] = field(default_factory=dict)
    programs: Programs = field(default_factory=dict)
    bytes_beside: int = 0

    def require_settled(self) -> None:
        """SourceUnreadableError for what no version of the app would start on."""
        if self.is_migrating:
            raise SourceUnreadableError(
                "Uptime Kuma is migrating its database, or was interrupted at it: an export of it could not be used.",
                next_step="Wait until its log says that the migration is done. If it was interrupted, the app's "
                "extra/reset-migrate-aggregate-table-state.js repairs it.",
            )

    @property
    def warnings(self) -> list[str]:
        """For an export of it."""
        return warnings_of(self.programs, (), "Uptime Kuma")

    @property
    def version(self) -> str:
        """For a person: the release that brought the last of the steps."""
        releases = _RELEASES_1 if self.generation == 1 else _RELEASES_2
        reached = [name for count, name in releases if count <= len(self.steps)]
        return f"{reached[-1]} or later" if reached else f"before {releases[0][1]}"

    @property
    def details(self) -> dict[str, str]:
        """For an archive's header."""
        what = "patches" if self.generation == 1 else "migrations"
        return {"generation": str(self.generation), what: str(len(self.steps)), "last_migration": self.last_step}


def facts_of(rows: Rows) -> KumaFacts:
    """
    Args:
        rows: answers to `queries`.
    """
    settings = {str(row[0]): str(row[1]) for row in rows.get("settings") or ()}
    migrations = [str(row[0]) for row in rows.get("migrations") or ()]
    # A first start of version 2 that was ended at once leaves the table empty, and the rest as version 1 had it.
    is_first = not migrations
    steps = _patches(settings.get("databasePatchedFiles", "")) if is_first else migrations
    is_locked = any(str(row[0]) not in ("0", "None") for row in rows.get("lock") or ())
    return KumaFacts(
        generation=1 if is_first else 2,
        steps=frozenset(steps),
        last_step=steps[-1] if steps else "",
        is_migrating=is_locked or settings.get("migrateAggregateTableState", "").strip('"') == _MIGRATING,
        counts={name: _count(rows.get(name)) for name in COUNTED},
        programs=programs_of(rows),
    )


def check_upload(upload: KumaFacts, target: KumaFacts | None) -> list[str]:
    """Whether an app can take an upload; returns what to warn of.

    Args:
        target: None when the app has no data yet, so its version is not known.
    Raises:
        ArchiveIncompatibleError: it cannot, and would not notice.
    """
    if upload.is_migrating:
        raise ArchiveIncompatibleError(
            "The database was copied while Uptime Kuma was migrating it, or after that was interrupted; no version "
            "starts on it.",
            next_step="Export again once the migration is through, or take the copy from before it. The app's "
            "extra/reset-migrate-aggregate-table-state.js repairs the app that it came from.",
        )
    if target is None:
        return [
            f"The app has no data yet, so its version is not known. The file is of Uptime Kuma {upload.version}; an "
            "older app would start on it and go wrong without saying so."
        ]
    if upload.generation > target.generation:
        raise ArchiveIncompatibleError(
            f"The file is of Uptime Kuma {upload.version}; this app is {target.version} and would start on it, without "
            "a word, and lose statistics.",
            next_step="Update the app to version 2 first, then import.",
        )
    if upload.generation < target.generation:
        return [
            f"The file is of Uptime Kuma {upload.version} and this app is {target.version}: it migrates the data when "
            f"it starts, about {told_duration(migration_seconds(upload, target))} for {beats_of(upload):,} heartbeats, "
            "and must not be stopped meanwhile: interrupted, it does not start again.",
            "The migration deletes heartbeats that are older than 24 hours, but for the last 100 of each monitor and "
            "those of outages; their sums stay in the statistics. Keep the file.",
        ]
    if unknown := upload.steps - target.steps:
        listed = ", ".join(printable(name) for name in sorted(unknown)[-_NAMED:])
        raise ArchiveIncompatibleError(
            f"The file is of Uptime Kuma {upload.version}, newer than this app ({target.version}): it has "
            f"{len(unknown)} changes of the schema that the app does not know, the last of them {listed}.",
            next_step="Update the app first, then import.",
        )
    if missing := target.steps - upload.steps:
        return [f"The file is of Uptime Kuma {upload.version}; the app applies {len(missing)} migrations at its start."]
    return []


def migration_seconds(upload: KumaFacts, target: KumaFacts | None) -> float:
    """How long the app is likely to be busy with the data at its first start; 0 where that does not count."""
    is_rebuilt = target is not None and upload.generation < target.generation
    return 1 + beats_of(upload) / BEATS_A_SECOND if is_rebuilt else 0


def beats_of(facts: KumaFacts) -> int:
    """Its heartbeats."""
    return facts.counts.get("heartbeats", 0)


def bridging(upload: KumaFacts, target: KumaFacts | None) -> str:
    """What becomes of data of another version, in one sentence; empty where it is of the same, or that is not known."""
    if target is None or upload.steps == target.steps:
        return ""
    opening = f"Written by Uptime Kuma {upload.version}, goes into {target.version}"
    if upload.generation < target.generation:
        return (
            f"{opening}: at its first start, which takes about {told_duration(migration_seconds(upload, target))}, the "
            "app makes the schema new, sums up all heartbeats, and deletes those older than 24 hours but for the last "
            "100 of each monitor and those of outages."
        )
    return f"{opening}: the app applies {len(target.steps - upload.steps)} migrations at its start."


def told_duration(seconds: float) -> str:
    """For a person, in whole seconds or minutes."""
    return counted(math.ceil(seconds), "seconds") if seconds < 90 else counted(math.ceil(seconds / 60), "minutes")


def require_kuma(tables: Sequence[str]) -> None:
    """ArchiveWrongKindError unless a database has the app's tables."""
    if missing := [table for table in REQUIRED_TABLES if table not in tables]:
        raise ArchiveWrongKindError(
            f"The database in the file is not one of Uptime Kuma: it lacks the tables {', '.join(missing)}."
        )


def compared(now: KumaFacts | None, after: KumaFacts) -> tuple[str, ...]:
    """What an import would change, in sentences."""
    before = now.counts if now else {}
    return tuple(
        f"{name.replace('_', ' ').capitalize()}: {before.get(name, 0)} now, {after.counts[name]} after."
        for name in COUNTED
        if before.get(name, 0) or after.counts[name]
    )


def _patches(setting: str) -> list[str]:
    try:
        found = json.loads(setting or "{}")
    except ValueError:
        return []
    return [str(name) for name, is_done in found.items() if is_done] if isinstance(found, dict) else []


def _count(rows: Sequence[Sequence[object]] | None) -> int:
    found = str(rows[0][0]) if rows else ""
    return int(found) if found.isdecimal() else 0
