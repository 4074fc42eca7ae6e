"""n8n's data: the files are hashed as they are unpacked, in a jail; the database is set aside and replayed alone.

SQLite reads its file, in a jail too; a dump is loaded into a temporary PostgreSQL.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import msgspec

from agent.engines.n8n.facts import OWN_PROGRAMS, PROVEN, SCHEME, tables_of
from agent.engines.n8n.postgres import scope_of
from agent.engines.replay.postgresql import replay_dump
from agent.engines.replay.reading import read_through
from agent.engines.replay.request import Replayed, Request
from agent.engines.sqlite.programs import foreign, programs_of
from agent.engines.sqlite.uploads import check_database
from agent.limits import Limits
from common.errors import ArchiveIncompatibleError
from common.fingerprints import Fingerprint

_UNPROVEN = (
    "What n8n keeps encrypted (the secrets in credentials, settings, second factors and wrapped keys) is in no "
    "fingerprint, since it is another text under each key; an import checks that its key opens it."
)


async def replay(request: Request) -> Replayed:
    """The fingerprint of an n8n that this archive would make.

    Raises:
        ArchiveIncompatibleError: there is no PostgreSQL here that could take it, or it does not name its database.
        ServiceError: it cannot be read through or loaded.
    """
    details = request.details
    if not (name := details.get("database", "")):
        raise ArchiveIncompatibleError("The archive's header does not say where its database is.")
    unproven = _UNPROVEN
    with tempfile.TemporaryDirectory(prefix="mathison-verify-") as folder:
        database = Path(folder) / "database"
        files = await _hashed(request.file, name, database)
        if details.get("database_type") == "sqlite":
            facts = await check_database(database, questions=PROVEN)
            tables, engine = tables_of(facts.answers.content), "SQLite"
            if others := foreign(programs_of(facts.answers.rows), OWN_PROGRAMS):
                unproven += f" Nor is it told by one whether n8n's database held {others}, which is in the archive."
        else:
            found = await replay_dump(
                str(database),
                version=details.get("database_version", ""),
                encoding=details.get("encoding", ""),
                scope=scope_of(details.get("schema", "public")),
            )
            tables, engine = dict(found.fingerprint.parts), found.engine
    return Replayed(Fingerprint.of(SCHEME, {**files.parts, **tables}), engine, unproven)


async def _hashed(file: str, name: str, database: Path) -> Fingerprint:
    """Of the archive's files; its database is written to a file of its own."""
    target = os.open(database, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        child, most = "agent.engines.replay.n8n_child", Limits().content_bytes
        answer = await read_through(file, child, SCHEME, name, str(target), pass_fds=(target,), file_size_bytes=most)
    finally:
        os.close(target)
    return msgspec.json.decode(answer, type=Fingerprint)
