"""The exchange of a whole schema: its tables by one RENAME, and around it its views, triggers, routines and events.

The RENAME decides: whose tables are in place says which side the schema is on, and what else there is follows them.
Both sides' definitions are written down before anything is dropped, so `recover` finishes it whatever ended us.

    written down -> coming tables get stand-ins of their triggers -> events dropped -> RENAME
                 -> the tables that left put away -> what is another on this side dropped and made
                 -> defaults led to the sequences in place -> read again

Nobody writes without triggers: leaving tables have theirs until they are out of their places, and those that come bring
stand-ins along. A trigger's name is unique in its schema, so these have names of ours, and are replaced by the triggers
themselves under a lock on their tables. It is otherwise for tables that cannot stand aside (`kept_apart`): their
triggers are dropped before the RENAME, and made after it.
There are no defaults from sequences that are new to the app: until they are led there, rows that need one are refused.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Sequence

import msgspec

from agent.engines.mariadb.imports import exchange
from agent.engines.mariadb.imports.notes import Notes, names_in, note_done
from agent.engines.mariadb.names import is_stand_in, stand_in
from agent.engines.mariadb.server import programs
from agent.engines.mariadb.server.catalog import table_names
from agent.engines.mariadb.server.client import once_it_is_back, patiently
from agent.engines.mariadb.server.programs import Program
from agent.engines.mariadb.server.settings import Login
from agent.engines.swapping import Side
from agent.unsettled import UnsettledError
from common.errors import ServiceError, ToolFailedError

_IS_SWITCHING = "is_switching"
_MUST_LEAD = "must_lead_defaults"


class Switch:
    """The exchange of one import, programs included."""

    def __init__(self, app: Login, database: str, tables: exchange.Exchange, notes: Notes) -> None:
        """
        Args:
            app: the account that owns the definitions of both sides.
        """
        self._app = app
        self._database = database
        self._tables = tables
        self._notes = notes

    async def bring(self, target: Side) -> None:
        """Put a side in place and keep the other. Repeating it changes nothing.

        Raises:
            AppBusyError: a table was locked all the time; all is as it was.
            AppUnavailableError, ToolFailedError: the server refused; all is as it was.
            UnsettledError: and now it does not let us take back what was done, or is not back in time to say what it
                has done.
        """
        if await self.recover() is target:
            return
        present = await programs.read(self._app, self._database)
        if not present and not self._written(target) and not self._must_lead_defaults(target):
            await self._tables.bring(target)
            return
        self._notes.save(**{_fact(target.other): _to_fact(present)}, **{_IS_SWITCHING: True})
        try:
            await self._exchange(target, present)
            await self._settle(target)
        except UnsettledError:
            raise
        # A fault of ours, too, is taken back: it would come again with each try to go on.
        except Exception as cause:
            try:
                await once_it_is_back(lambda: self._take_back(target))
            except ServiceError as obstacle:
                raise UnsettledError(f"{cause} It could not be taken back: {obstacle.text}") from cause
            raise

    async def _take_back(self, target: Side) -> None:
        """Put everything back as it was before `bring`."""
        if await self._tables.recover() is target:
            await self._tables.put_away()
            await self._exchange(target.other, await programs.read(self._app, self._database))
        await self._settle(target.other)

    async def recover(self) -> Side:
        """Finish what was interrupted and say which side is in place. Repeating it changes nothing."""
        side = await self._tables.recover()
        if self._notes.facts.get(_IS_SWITCHING):
            await self._settle(side)
        return side

    async def _exchange(self, target: Side, present: Sequence[Program]) -> None:
        coming = await self._tables.coming(target)
        with_triggers = await self._tables.with_triggers()
        not_leaving, not_coming = await self._tables.kept_apart(target)
        leaving = [table for table in with_triggers if table not in not_leaving]
        bare = [table for table in with_triggers if table in not_leaving]
        triggers = [
            (table, found)
            for found in self._written(target)
            if found.kind == "trigger" and (table := _table_of(found, coming)) and table not in not_coming
        ]
        given = {table for table, _ in triggers}
        await self._tables.give_way(target, {*leaving, *given})
        near = await self._tables.bring_near(target, given)
        standing_in = [
            found.standing_in(stand_in(self._notes.key, number), near[table])
            for number, (table, found) in enumerate(triggers)
        ]
        # Without one, a table has its triggers some milliseconds after it has come.
        with contextlib.suppress(ToolFailedError):
            await programs.make(self._app, self._database, standing_in, dropping=())
        # A view stands in the way of a table of its name; others stay, for those who read, until the tables are there.
        first = {
            found.key
            for found in present
            if found.kind == "event"
            or (found.kind == "view" and found.name in coming)
            or (found.kind == "trigger" and _table_of(found, bare))
        }
        await programs.drop(self._app, self._database, first)
        await self._tables.bring(target, with_triggers=leaving)

    async def _settle(self, side: Side) -> None:
        """Make what belongs to a side be there, and nothing of the other's."""
        wanted = self._written(side)
        await self._tables.put_away()
        await patiently(lambda: self._make(side))
        await self._tables.name_keys()
        if self._must_lead_defaults(side):
            await self._tables.lead_defaults()
        there = {program.key: program for program in await programs.read(self._app, self._database)}
        gone = []
        for program in wanted:
            if (found := there.get(program.key)) == program:
                continue
            if not await programs.is_over(self._app, program, found):
                raise ToolFailedError(f"The {program.kind} {program.name} was not made as it was written down.")
            if found is None:
                gone.append(programs.kept_when_over(program))
        await programs.make(self._app, self._database, gone, dropping=())
        note_done(self._notes, **{_IS_SWITCHING: False})

    async def _make(self, side: Side) -> None:
        """Drop and make what is not there as it is wanted."""
        wanted, other = self._written(side), self._written(side.other)
        there = await programs.read(self._app, self._database)
        standing = {found.key for found in wanted if found in there}
        for kind in ("view", "trigger"):
            # All or none: the server knows of a view what those have that it reads, and triggers have an order.
            if [found for found in there if found.kind == kind] != [found for found in wanted if found.kind == kind]:
                standing -= {found.key for found in wanted if found.kind == kind}
        known = {found.key for found in (*wanted, *other)}
        going = [
            found
            for found in there
            if found.key not in standing and (found.key in known or is_stand_in(found.name, self._notes.key))
        ]
        making = [found for found in wanted if found.key not in standing]
        triggers = [found for found in (*going, *making) if found.kind == "trigger"]
        in_place = (triggers and await table_names(self._app, self._database)) or ()
        tables = {_table_of(found, in_place) for found in triggers}
        await programs.make(
            self._app,
            self._database,
            making,
            dropping={found.key for found in going},
            # Where one's text does not tell its table, there is no lock under which it could be made.
            locking=() if None in tables else {table for table in tables if table},
        )

    def _must_lead_defaults(self, side: Side) -> bool:
        """Those of the previous tables lead to the schema into which they go back."""
        return side is Side.IMPORTED and bool(self._notes.facts.get(_MUST_LEAD))

    def _written(self, side: Side) -> list[Program]:
        return [msgspec.convert(json.loads(line), Program) for line in names_in(self._notes, _fact(side)) or ()]


def write_down_staged(notes: Notes, staged: Sequence[Program], *, must_lead_defaults: bool) -> None:
    """Keep what an import brings along; returns when that is durable.

    Args:
        must_lead_defaults: some of its tables' defaults look for sequences that the app does not have yet.
    """
    notes.save(**{_fact(Side.IMPORTED): _to_fact(staged)}, **{_MUST_LEAD: must_lead_defaults})


def _table_of(trigger: Program, tables: Collection[str]) -> str | None:
    """The one of these tables on which a trigger is; None: it is on none, or its text does not tell.

    A server that tells no names apart by their case keeps the words of who made the trigger.
    """
    told = trigger.table or ""
    return next((table for table in tables if table == told), None) or next(
        (table for table in tables if table.lower() == told.lower()), None
    )


def _fact(side: Side) -> str:
    return f"programs_{side.name.lower()}"


def _to_fact(found: Sequence[Program]) -> list[str]:
    # msgspec writes no surrogates.
    return [json.dumps(msgspec.to_builtins(program)) for program in found]
