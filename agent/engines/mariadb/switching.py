"""The exchange of a whole schema: its tables by one RENAME, and around it its views, triggers, routines and events.

The RENAME decides: whose tables are in place says which side the schema is on, and what else there is follows them.
Both sides' definitions are written down before anything is dropped, so `recover` finishes it whatever ended us.

    written down -> triggers and events dropped -> RENAME -> the rest dropped -> the other side's made
                 -> defaults led to the sequences in place -> read again

Triggers are dropped under a lock on all tables behind which the RENAME waits already. It takes its own locks one by
one: writes that wait for a later table than its first go through without triggers, for as long as its attempts last. So
do those after a server that ended in between, until they are made again, and those to the new tables between the RENAME
and their triggers: some milliseconds.
Nor are there defaults from sequences that are new to the app: until they are led there, rows that need one are refused.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from agent.engines.mariadb import exchange, programs
from agent.engines.mariadb.catalog import table_names
from agent.engines.mariadb.client import held, once_it_is_back, patiently, quoted
from agent.engines.mariadb.programs import Program
from agent.engines.mariadb.settings import Login
from agent.engines.swapping import Side
from agent.unsettled import UnsettledError
from common.errors import ServiceError, ToolFailedError

_LOOK_SECONDS = 0.01
_IS_SWITCHING = "is_switching"
_MUST_LEAD = "must_lead_defaults"


class Record(Protocol):
    """What of recipes.base.Record is used here."""

    @property
    def facts(self) -> Mapping[str, object]: ...

    def save(self, **facts: bool | list[str]) -> None:
        """Merge into `facts` and make durable before returning."""


class Switch:
    """The exchange of one import, programs included."""

    def __init__(self, app: Login, database: str, tables: exchange.Exchange, record: Record) -> None:
        """
        Args:
            app: the account that owns the definitions of both sides.
        """
        self._app = app
        self._database = database
        self._tables = tables
        self._record = record

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
        self._record.save(**{_fact(target.other): _to_fact(present)}, **{_IS_SWITCHING: True})
        try:
            await self._exchange(target, present)
            await self._settle(target)
        except ServiceError as cause:
            try:
                await once_it_is_back(lambda: self._take_back(target, present))
            except ServiceError as obstacle:
                raise UnsettledError(f"{cause.text} It could not be taken back: {obstacle.text}") from cause
            raise

    async def _take_back(self, target: Side, present: Sequence[Program]) -> None:
        """Put everything back as it was before `bring`."""
        is_there = await self._tables.recover() is target.other
        if is_there and await programs.read(self._app, self._database) == present:
            # To make it again would wait, without a bound, for the locks that kept us from dropping it.
            self._record.save(**{_IS_SWITCHING: False})
            return
        if not is_there:
            # What stands in the way of the tables, and whatever else was made.
            kept = {program.key for program in present}
            there = await programs.list_all(self._app, self._database)
            made = {found.key for found in there if found.kind == "trigger" or found.key not in kept}
            await programs.drop(self._app, self._database, made)
            await self._tables.bring(target.other)
        await self._settle(target.other)

    async def recover(self) -> Side:
        """Finish what was interrupted and say which side is in place. Repeating it changes nothing."""
        side = await self._tables.recover()
        if self._record.facts.get(_IS_SWITCHING):
            await self._settle(side)
        return side

    async def _exchange(self, target: Side, present: Sequence[Program]) -> None:
        coming = await self._tables.coming(target)
        # A view stands in the way of a table of its name; others stay, for those who read, until the tables are there.
        first = {
            found.key for found in present if found.kind == "event" or (found.kind == "view" and found.name in coming)
        }
        triggers = {found.key for found in present if found.kind == "trigger"}
        tables = await table_names(self._app, self._database)
        if not triggers or not tables:
            await programs.drop(self._app, self._database, first)
            await self._tables.bring(target)
            return
        locks = ", ".join(f"{quoted(table)} WRITE" for table in tables)
        sql = f"LOCK TABLES {locks}; {programs.drops(triggers)}"
        moving: asyncio.Task[None] | None = None
        try:
            async with contextlib.AsyncExitStack() as stack:
                await patiently(lambda: stack.enter_async_context(held(self._app, sql, database=self._database)))
                # Not before, so that nothing is dropped when there is no lock to be had.
                await programs.drop(self._app, self._database, first)
                moves = await self._tables.prepare(target)
                moving = asyncio.create_task(self._tables.rename(moves, target), name="exchange tables")
                while not moving.done() and not await self._tables.is_waiting():  # noqa: ASYNC110  # the server's
                    await asyncio.sleep(_LOOK_SECONDS)
            await moving
        finally:
            if moving is not None:
                moving.cancel()
                await asyncio.gather(moving, return_exceptions=True)

    async def _settle(self, side: Side) -> None:
        """Make what belongs to a side be there, and nothing of the other's."""
        wanted = self._written(side)
        await patiently(lambda: self._make(side))
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
        self._record.save(**{_IS_SWITCHING: False})

    async def _make(self, side: Side) -> None:
        wanted = self._written(side)
        known = {program.key for program in (*wanted, *self._written(side.other))}
        # Not all that is known: a table may be called as a view of the other side.
        listed = {found.key for found in await programs.list_all(self._app, self._database)}
        # In one go: until its triggers are there, the app writes without them.
        await programs.make(self._app, self._database, wanted, dropping=known & listed)

    def _must_lead_defaults(self, side: Side) -> bool:
        """Those of the previous tables lead to the schema into which they go back."""
        return side is Side.IMPORTED and bool(self._record.facts.get(_MUST_LEAD))

    def _written(self, side: Side) -> list[Program]:
        written = self._record.facts.get(_fact(side))
        return [msgspec.json.decode(line, type=Program) for line in written] if isinstance(written, list) else []


def write_down_staged(record: Record, staged: Sequence[Program], *, must_lead_defaults: bool) -> None:
    """Keep what an import brings along; returns when that is durable.

    Args:
        must_lead_defaults: some of its tables' defaults look for sequences that the app does not have yet.
    """
    record.save(**{_fact(Side.IMPORTED): _to_fact(staged)}, **{_MUST_LEAD: must_lead_defaults})


def _fact(side: Side) -> str:
    return f"programs_{side.name.lower()}"


def _to_fact(found: Sequence[Program]) -> list[str]:
    return [msgspec.json.encode(program).decode() for program in found]
