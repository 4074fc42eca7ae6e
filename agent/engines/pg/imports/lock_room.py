"""Whether a server has room for the locks of an import within the database, and for those of its undo.

Each of the two is one transaction, and what it moves, makes or unlinks stays locked to its end. All sessions share the
room; what does not fit ends with "out of shared memory", for others too.
"""

from __future__ import annotations

from agent.engines.pg.aside.moving import count_moves
from agent.engines.pg.loading.load import Loaded
from agent.engines.pg.server.connection import Connection
from common.errors import AppUnavailableError

_OF_A_TABLE = 3
"""The table, and the table with its index for values that are long."""
_SPARE = 100
"""Catalogs, schemas, extensions."""
_ROOM = """
    SELECT current_setting('max_locks_per_transaction')::int,
           current_setting('max_connections')::int + current_setting('max_prepared_transactions')::int,
           (SELECT count(*) FROM pg_largeobject_metadata)
"""
"""As the manual reckons the size of the lock table."""


async def require_lock_room(connection: Connection, loaded: Loaded) -> None:
    """
    Args:
        connection: to the app's database as it is now.
        loaded: what the file would bring.
    Raises:
        AppUnavailableError: there is no room.
    """
    cursor = await connection.execute(_ROOM)
    per_session, sessions, large_objects = await cursor.fetchone() or (0, 0, 0)
    tables = loaded.counts.get("tables", 0)
    # An import unlinks the large objects of now, its undo those of the file; what was made is moved by an undo.
    needed = (
        _SPARE
        + await count_moves(connection)
        + max(large_objects, loaded.counts.get("large_objects", 0))
        + (_OF_A_TABLE - 1) * tables
        + loaded.made
    )
    if needed <= per_session * sessions:
        return
    raise AppUnavailableError(
        f"An import within the app's database, or its undo, would lock about {needed:,} tables, indexes, large objects "
        f"and other things at once, and the server has room for {per_session * sessions:,} locks.",
        next_step=f"Set max_locks_per_transaction to {-(-needed // sessions)} or more (it is {per_session}) in "
        "postgresql.conf and restart the server, then import again; or give the agent an admin_user: it imports beside "
        "the app's database, where nothing has to be locked at once.",
    )
