"""Row security that applies to a table's owner too, lifted while an import fills materialized views.

The role that loads owns the tables of the file, and with FORCE ROW LEVEL SECURITY their policies apply to it: a REFRESH
is then refused (pg_dump writes `SET row_security = off`), or leaves rows out. An owner may lift that, so no role needs
BYPASSRLS. Imports little: it runs in a child that has to stay small.
"""

from __future__ import annotations

from agent.engines.pg.loading.sessions import Session

_FORCED = b"""
    SELECT pg_catalog.format('%I.%I', n.nspname, c.relname)
      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
     WHERE c.relforcerowsecurity AND pg_catalog.row_security_active(c.oid)
       AND pg_catalog.pg_has_role(c.relowner, 'USAGE')
"""
"""A table that another role owns stays as it is, and so does everything for a role that no policy applies to."""


class ForcedRowSecurity:
    """Lifts it and puts it back, over the session that fills the views."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._tables: list[bytes] | None = None
        self._line = 0

    async def lift(self, line: int) -> None:
        """Until `put_back`, no policy applies to the owner of a table.

        Args:
            line: of the statement that needs it, for an error.
        """
        if self._tables is None:
            self._line = line
            self._tables = await self._session.names(_FORCED, line)
            for table in self._tables:
                await self._session.run(b"ALTER TABLE ONLY " + table + b" NO FORCE ROW LEVEL SECURITY", line)

    async def put_back(self) -> None:
        """SqlFailure where that cannot be: code of the file that fills a view has renamed the table, for example."""
        tables, self._tables = self._tables or (), None
        for table in tables:
            await self._session.run(b"ALTER TABLE ONLY " + table + b" FORCE ROW LEVEL SECURITY", self._line)
