"""What an import left in a server beside the app's database, found by its line in the journal.

Asks nothing of the app's database, which a file may have taken from the agent, or somebody since. Names are what says
which data the app has and what is dropped, so what code of the upload changed outside is put right before either.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from agent.engines.pg.imports import beside
from agent.engines.pg.imports.own_rights import require_same_after_crash
from agent.engines.pg.server.connection import Login, connect
from agent.engines.pg.server.names import kept_name, new_name, role_name, session_name
from agent.engines.pg.server.settings import PostgresSettings
from agent.engines.swapping import Side
from common.errors import ArchiveRefusedError

_log = structlog.get_logger(__name__)


class Record(Protocol):
    """The journal's line of one import; see recipes.base.Record."""

    @property
    def key(self) -> str: ...

    @property
    def facts(self) -> MutableMapping[str, Any]: ...

    def save(self, **facts: str | bool | list[str]) -> None: ...


@dataclass(frozen=True)
class Remains:
    """Of one import.

    Attributes:
        record: holds here, of a load with the agent's own rights, `outside`, with values of settings: what was there
            before, until it was looked at again; and `is_loaded`: it has ended, with nothing changed.
    """

    settings: PostgresSettings
    record: Record

    def remember(self, outside: str) -> None:
        """Keep what `own_rights.same_outside` asks for."""
        self.record.save(outside=outside, is_loaded=not outside)

    async def put_right(self) -> ArchiveRefusedError | None:
        """As `recipes.base.Recipe.put_right`; after one look there is nothing to find any more.

        Raises:
            AppUnavailableError, AppBusyError: not possible now.
        """
        try:
            return await self._look()
        except ArchiveRefusedError as not_let_in:
            return not_let_in

    async def _look(self) -> ArchiveRefusedError | None:
        """As `put_right`; raises what says that the role is not let in, since there was no look then."""
        remembered = self.record.facts.get("outside")
        if not remembered:
            return None
        found = await require_same_after_crash(
            remembered,
            self._logins(),
            loads_into=new_name(self.record.key),
            session=session_name(self.record.key),
        )
        # Not saved: the line that says what was found is the next one, and before it the question stays open.
        self.record.facts["outside"] = ""
        return found

    async def kept(self) -> Side | None:
        """Whose database is kept beside the app's; None: nobody's (any more). Raises as `discard`."""
        await self._settle()
        return await beside.kept(await self._holder(), self.record.key, may_be_restored=self._may_be_restored)

    async def discard(self) -> None:
        """Drop the new or the previous database and the role, whatever there is of them.

        Raises:
            ArchiveRefusedError: the role is not let in any more; nothing was dropped.
            AppUnavailableError, AppBusyError, NoSpaceError: not possible now, or no role of the agent may.
        """
        await self._settle()
        holder = await self._holder()
        await beside.discard(holder, self.record.key, self.settings, may_be_restored=self._may_be_restored)

    async def _settle(self) -> None:
        if self.record.facts.get("outside"):
            if found := await self._look():
                _log.warning("A file had changed what is outside.", action="put_right", error=found.text)
            # What a person changes from now on is left alone, however long the rest takes.
            self.record.save(outside="")

    @property
    def _may_be_restored(self) -> bool:
        """False: only code of the file can have called a database as the previous one of this import."""
        return self.record.facts.get("is_loaded") is not False

    def _logins(self) -> list[Login]:
        """The agent's roles and their ways into the maintenance database."""
        logins = [one for one in (self.settings.admin_login(), self.settings.app_login()) if one is not None]
        return [one.to(self.settings.safe_maintenance_database) for one in logins]

    async def _holder(self) -> Login:
        """Who may drop all that there is; where nobody may, the first: the server then says what it may not."""
        logins = self._logins()
        for login in logins:
            async with connect(login, application_name=session_name(self.record.key)) as connection:
                cursor = await connection.execute(
                    """
                    SELECT NOT EXISTS (SELECT FROM pg_database
                                        WHERE datname = ANY(%s) AND NOT pg_has_role(datdba, 'USAGE'))
                           AND (rolsuper OR rolcreaterole OR NOT EXISTS (SELECT FROM pg_roles WHERE rolname = %s))
                      FROM pg_roles WHERE rolname = current_user
                    """,
                    [[new_name(self.record.key), kept_name(self.record.key)], role_name(self.record.key)],
                )
                if await cursor.fetchone() == (True,):
                    return login
        return logins[0]
