"""A dump of one database, loaded into a temporary MariaDB with all its views, triggers, routines and events."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from agent.engines.mariadb import floats
from agent.engines.mariadb.dumping import fingerprint_of
from agent.engines.replay.mariadb_server import loaded
from agent.engines.replay.request import Replayed, Request, chunks_of
from common.errors import ArchiveIncompatibleError


async def replay(request: Request) -> Replayed:
    """The fingerprint of a database that this archive would make.

    Raises:
        ArchiveIncompatibleError: there is no MariaDB here, or the archive is one of MySQL.
        ServiceError: it cannot be loaded.
    """
    if "mariadb" not in request.engine_version.lower():
        # Its dumps go into MariaDB, but rows of generated columns do not come out of it as they do of MySQL.
        raise ArchiveIncompatibleError(
            f"This archive is of MySQL {request.engine_version}, and no MySQL is started for a replay.",
            next_step="Import it into an app that is there to try it, and compare by `mathison fingerprint`.",
        )
    with tempfile.TemporaryDirectory(prefix="mathison-verify-") as name:
        folder = Path(name) / "server"
        folder.mkdir()
        if os.geteuid() == 0:
            # The server's user passes through, and cannot list.
            folder.parent.chmod(0o711)
        async with loaded(chunks_of(request.file), folder, takes_programs=True) as found:
            fingerprint = await fingerprint_of(found.login, found.schema, is_staged=True)
            return Replayed(fingerprint, found.engine, floats.told_of(request.details))
