"""What n8n's SQLite database says of itself, from the very copy that is exported or as it is now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.engines.n8n.contents import REQUIRED_TABLES
from agent.engines.n8n.fits import Fit
from agent.engines.n8n.fitting import fit_of_rows
from agent.engines.n8n.secret_rows import is_wrapped
from agent.engines.sqlite.programs import PROGRAMS, Programs, programs_of, without_quotes
from agent.engines.sqlite.questions import Answers, Questions
from common.errors import AppUnavailableError

_COUNTS = {
    "workflows": "SELECT count(*) FROM workflow_entity",
    "active_workflows": "SELECT count(*) FROM workflow_entity WHERE active",
    "credentials": "SELECT count(*) FROM credentials_entity",
    "executions": "SELECT count(*) FROM execution_entity",
    "users": 'SELECT count(*) FROM "user"',
}
_MIGRATIONS = {"migrations": "SELECT name FROM migrations ORDER BY id"}
_SECRETS = {
    "wrapped": "SELECT id, type, value, algorithm FROM deployment_key LIMIT 100",
    "sample": "SELECT id, name, data FROM credentials_entity WHERE length(data) < 20000 ORDER BY id LIMIT 20",
}
_TABLES = (*REQUIRED_TABLES, "execution_entity", "user", "deployment_key")
PRESENT = Questions({**_COUNTS, **_MIGRATIONS}, _TABLES)
"""For what is there before an import."""
PRESENT_IN_FILE = Questions({**PRESENT.queries, **PROGRAMS}, _TABLES)
"""The same of a SQLite file."""
EXPORTED = Questions({**_COUNTS, **_MIGRATIONS, **_SECRETS}, _TABLES)
"""The same with some secrets, to try the key on."""
EXPORTED_IN_FILE = Questions({**EXPORTED.queries, **PROGRAMS}, _TABLES)
ENCRYPTED = {
    "credentials_entity": ["data"],
    "deployment_key": ["value"],
    "settings": ["value"],
    "user": ["mfaSecret", "mfaRecoveryCodes"],
}
PROVEN = Questions(EXPORTED_IN_FILE.queries, _TABLES, with_content=True, without_columns=ENCRYPTED)
"""The same with a digest of each table, without what is encrypted: that is another text each time."""
SCHEME = "n8n/3"
_COUNTING = """CREATE TRIGGER workflow_version_increment AFTER UPDATE ON workflow_entity FOR EACH ROW
    WHEN OLD.versionCounter = NEW.versionCounter {condition}
    BEGIN UPDATE workflow_entity SET versionCounter = versionCounter + 1 WHERE id = NEW.id; END"""
_ON_CONTENT = "AND (OLD.nodes IS NOT NEW.nodes OR OLD.settings IS NOT NEW.settings)"
OWN_PROGRAMS = frozenset(without_quotes(_COUNTING.format(condition=condition)) for condition in ("", _ON_CONTENT))
"""All that n8n has in SQLite up to 2.41: a trigger, as AddWorkflowVersionColumn and its successor make it."""


def tables_of(content: Mapping[str, str]) -> dict[str, str]:
    """The parts of a fingerprint that are a SQLite database's."""
    return {f"table {name}": said for name, said in content.items()}


@dataclass(frozen=True)
class Facts:
    """Counts by what they count; migrations by n8n's names, the oldest first; how well a key fits; triggers, views."""

    counts: dict[str, int] = field(default_factory=dict)
    migrations: list[str] = field(default_factory=list)
    fit: Fit = field(default_factory=Fit)
    programs: Programs = field(default_factory=dict)

    @property
    def last_migration(self) -> str:
        return self.migrations[-1] if self.migrations else ""


async def facts_of(answers: Answers, key: str = "") -> Facts:
    """
    Args:
        key: tried on what is secret, where that was asked for.
    Raises:
        AppUnavailableError: the database is not n8n's, or n8n has not made it yet.
    """
    rows = answers.rows
    migrations = rows.get("migrations")
    if not migrations or any(rows.get(name) is None for name in ("workflows", "credentials")):
        raise AppUnavailableError(
            f"The database is not n8n's, or n8n has not set it up yet: it lacks {', '.join(REQUIRED_TABLES)}.",
            next_step="Start n8n once and wait until it is ready; see that database_file names its database. Tables "
            "with a prefix (DB_TABLE_PREFIX) are not supported.",
        )
    wrapped = [row for row in rows.get("wrapped") or [] if is_wrapped(row[1], row[3])]
    sample = [row for row in rows.get("sample") or [] if row[2]]
    return Facts(
        counts={name: int(found[0][0]) for name in _COUNTS if (found := rows.get(name))},
        migrations=[str(row[0]) for row in migrations],
        fit=await fit_of_rows(
            [(str(row[0]), str(row[1]), str(row[2]), str(row[3])) for row in wrapped],
            [(str(row[0]), str(row[1]), str(row[2])) for row in sample],
            key,
        ),
        programs=programs_of(rows),
    )
