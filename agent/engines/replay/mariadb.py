"""A dump of one database, loaded into a temporary server of its kind with all its views, triggers, routines and events.

What MySQL's dumps hold goes into MariaDB, but rows of generated columns do not come out of that as they do of MySQL.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from agent.engines.mariadb.exports import lost_values
from agent.engines.mariadb.exports.dumping import fingerprint_of
from agent.engines.replay.mariadb_server import loaded
from agent.engines.replay.request import Replayed, Request, chunks_of


async def replay(request: Request) -> Replayed:
    """The fingerprint of a database that this archive would make.

    Raises:
        ArchiveIncompatibleError: there is no such server here.
        ServiceError: it cannot be loaded.
    """
    is_mysql = "mariadb" not in request.engine_version.lower()
    with tempfile.TemporaryDirectory(prefix="mathison-verify-") as name:
        folder = Path(name) / "server"
        folder.mkdir()
        if os.geteuid() == 0:
            # The server's user passes through, and cannot list.
            folder.parent.chmod(0o711)
        async with loaded(chunks_of(request.file), folder, is_mysql=is_mysql, takes_programs=True) as found:
            fingerprint = await fingerprint_of(found.login, found.schema, is_staged=True)
            return Replayed(fingerprint, found.engine, " ".join(lost_values.told_of(request.details)))
