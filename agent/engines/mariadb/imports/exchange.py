"""All tables of a schema exchanged for others by one RENAME TABLE, which the server does entirely or not at all.

The server moves no table with triggers to another schema. Within its own it does, with them, and in the same statement
that moves others away and in. So tables with triggers stand aside in the app's schema, under names of ours: those that
leave until `put_away`, those that come from `bring_near` on.

There is no journal: which tables were the app's when the exchange began, and which stand aside, is written down before
it, and with that, where each table is now says how far it got. Old servers (before 10.6) may stop half-way when they
crash; the same look then says what is left to be done.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from agent.engines.mariadb import names
from agent.engines.mariadb.imports import check_names, key_names
from agent.engines.mariadb.imports.loading import drop_loader
from agent.engines.mariadb.imports.notes import Notes, names_in, note_done, numbered
from agent.engines.mariadb.server import sequences
from agent.engines.mariadb.server.catalog import tables_of
from agent.engines.mariadb.server.client import literal, once_it_is_back, patiently, query, quoted
from agent.engines.mariadb.server.settings import Login
from agent.engines.swapping import Side
from agent.unsettled import UnsettledError
from common.errors import AppBusyError, AppUnavailableError, InternalError, ServiceError, ToolFailedError

_PENDING_SECONDS = 30.0
_LOOK_SECONDS = 0.1
_PREVIOUS = "previous"
_ASIDE = "aside"
_COMING = "coming"
_MUST_LOOK = "must_look_for_others"
_OTHERS = "others"
_IN_PLACE = "imported_is_in_place"


class _Found(NamedTuple):
    """Where tables are; None: the schema is not there, nor any of its tables.

    Attributes:
        present: in place.
        kept: the previous ones that are not.
        waiting: the imported ones that are not.
        aside: those of `kept` and `waiting` that stand aside, by schema and name, with what they are called meanwhile.
    """

    present: list[str] | None
    kept: list[str] | None
    waiting: list[str] | None
    aside: Mapping[tuple[str, str], str]


class Exchange:
    """The exchange of one import. Implements recipes.exchanges.Exchange, for apps that have to be down for it."""

    def __init__(self, admin: Login, database: str, notes: Notes) -> None:
        self._admin = admin
        self._database = database
        self._notes = notes
        self._key = notes.key
        self._new = names.new_schema(notes.key)
        self._old = names.old_schema(notes.key)

    @property
    def _is_begun(self) -> bool:
        return names_in(self._notes, _PREVIOUS) is not None

    @property
    def _previous(self) -> frozenset[str]:
        """The app's tables from before it."""
        return frozenset(names_in(self._notes, _PREVIOUS) or ())

    async def kept(self) -> Side | None:
        """Whose tables are kept beside those in place; None: nobody's (any more), or only some of them."""
        found = await self._look()
        side = self._side_of(found) if self._is_begun else Side.PREVIOUS
        # Nor when both are empty-handed: somebody has dropped the previous ones, and the new ones are in place.
        if side is Side.PREVIOUS and (
            found.waiting is None or (found.kept is None and self._previous and not found.waiting)
        ):
            return None
        return side and side.other

    async def is_unfinished(self) -> bool:
        """Whether a server that knows no RENAME of all or nothing was killed in the middle of one."""
        return await self._side() is None

    async def recover(self) -> Side:
        """Finish what was interrupted and say whose tables are in place. Repeating it changes nothing."""
        await self._end_pending()
        if (side := await self._side()) is None:
            await self._rename(await self.prepare(Side.PREVIOUS, await self.with_triggers()))
            side = Side.PREVIOUS
        if side is Side.IMPORTED and self._notes.facts.get(_MUST_LOOK):
            await self._note_others()
        self._note(side)
        return side

    def _note(self, side: Side) -> None:
        """Whose tables are in place, for `drop`."""
        if self._is_begun and self._notes.facts.get(_IN_PLACE) is not (side is Side.IMPORTED):
            note_done(self._notes, **{_IN_PLACE: side is Side.IMPORTED})

    async def _note_others(self) -> None:
        """Note which tables are in place and did not come: the app made them while the RENAME waited, and keeps them on
        either side."""
        coming = names_in(self._notes, _COMING) or ()
        present = (await self._look()).present or ()
        others = [table for table in present if table not in coming]
        note_done(self._notes, **{_OTHERS: others}, **{_MUST_LOOK: False})

    async def _side(self) -> Side | None:
        """Whose tables are in place; None: some of both."""
        return self._side_of(await self._look()) if self._is_begun else Side.PREVIOUS

    async def _look(self) -> _Found:
        present, kept, waiting = await tables_of(self._admin, self._database, self._old, self._new)
        aside = {
            (schema, table): name
            for number, table in enumerate(names_in(self._notes, _ASIDE) or ())
            for schema in (self._old, self._new)
            if (name := names.aside(schema, number)) in (present or ())
        }

        def with_those_aside(schema: str, tables: list[str] | None) -> list[str] | None:
            beside = [table for owner, table in aside if owner == schema]
            return tables if tables is None and not beside else [*(tables or ()), *beside]

        return _Found(
            present=None if present is None else [table for table in present if table not in aside.values()],
            kept=with_those_aside(self._old, kept),
            waiting=with_those_aside(self._new, waiting),
            aside=aside,
        )

    def _side_of(self, found: _Found) -> Side | None:
        """The same, by where the tables are."""
        if not found.kept and found.kept is not None and not self._previous:
            # Nothing was there before, so only the new ones can tell.
            return Side.PREVIOUS if found.waiting else Side.IMPORTED
        if not found.kept:
            return Side.PREVIOUS
        return Side.IMPORTED if set(found.kept) == self._previous and not found.waiting else None

    async def with_triggers(self) -> list[str]:
        """The tables in place that have some."""
        found = await self._look()
        return [table for table in await self._triggers() if table in (found.present or ())]

    async def bring(self, target: Side, *, with_triggers: Collection[str] = ()) -> None:
        """Put a side's tables in place and keep the other's. Repeating it changes nothing.

        Args:
            with_triggers: tables in place that have some; they stand aside afterwards, with them.
        Raises:
            AppBusyError: a table was locked all the time; all is as it was.
            AppUnavailableError, ToolFailedError: the server refused; all is as it was, as long as it lives.
            UnsettledError: nobody knows which side's tables are in place, or will be; `recover` is to be asked.
        """
        await self.rename(await self.prepare(target, with_triggers), target)

    async def prepare(self, target: Side, with_triggers: Collection[str] = ()) -> list[str]:
        """Write down what is to be known after a crash; what `rename` has to move."""
        found = await self._look()
        present, kept, waiting = found.present, found.kept, found.waiting
        if present is not None and (not self._is_begun or self._side_of(found) is Side.PREVIOUS):
            if target is Side.PREVIOUS:
                return []
            self._notes.save(**{_PREVIOUS: present, _COMING: waiting or []}, **{_MUST_LOOK: True})
        if kept is None:
            await query(self._admin, f"CREATE DATABASE IF NOT EXISTS {quoted(self._old)};")
            kept = []
        if waiting is None and target is Side.PREVIOUS:
            # Empty while the imported tables are in place, so somebody may have dropped it.
            await query(self._admin, f"CREATE DATABASE IF NOT EXISTS {quoted(self._new)};")
            waiting = []
        if present is None:
            raise AppUnavailableError(
                f"{self._admin.place} has no database {self._database}.",
                next_step="Make it again, empty, then try again: what the import keeps is in schemas of its own.",
            )
        if waiting is None:
            raise InternalError(f"What import of {self._database} keeps in the server is not there any more.")
        if target is Side.IMPORTED:
            leaving = [table for table in present if table in self._previous and table not in kept]
            goal, coming, source = self._old, waiting, self._new
        else:
            others = names_in(self._notes, _OTHERS) or ()
            leaving = [
                table for table in present if table not in others and (table not in self._previous or table in kept)
            ]
            goal, coming, source = self._new, kept, self._old
        aside = self._to_stand_aside(goal, [table for table in leaving if table in with_triggers])
        moves = [_move(self._at(table), aside.get(table) or (goal, table)) for table in sorted(leaving)]
        for table in sorted(coming):
            name = found.aside.get((source, table))
            moves.append(_move(self._at(name) if name else (source, table), self._at(table)))
        return moves

    async def bring_near(self, target: Side, tables: Collection[str]) -> dict[str, str]:
        """Have tables that are to come stand aside in the app's schema already, where they can be given triggers.

        Returns:
            What each is called there; those that are not to come are missing.
        Raises:
            AppBusyError, AppUnavailableError, ToolFailedError: `put_away` takes them back.
        """
        source = self._source(target)
        found = await self._look()
        coming = (found.waiting if target is Side.IMPORTED else found.kept) or ()
        near = self._to_stand_aside(source, [table for table in tables if table in coming])
        moves = [_move((source, table), there) for table, there in near.items() if (source, table) not in found.aside]
        await self._rename(moves)
        return {table: name for table, (_, name) in near.items()}

    async def put_away(self) -> None:
        """Move what stands aside to the schema where it is kept, and drop its triggers before. Repeating it changes
        nothing.

        Raises:
            AppBusyError, AppUnavailableError, ToolFailedError: some stand aside still.
        """
        await self._put_away(await self._look())

    async def _put_away(self, found: _Found) -> None:
        if not (aside := found.aside):
            return
        triggers = await self._triggers()
        dropping = "".join(
            f"DROP TRIGGER IF EXISTS {quoted(self._database)}.{quoted(trigger)};"
            for name in aside.values()
            for trigger in triggers.get(name, ())
        )
        if dropping:
            await patiently(lambda: query(self._admin, dropping))
        await self._rename([_move(self._at(name), kept) for kept, name in aside.items()])

    async def give_way(self, target: Side, with_triggers: Collection[str]) -> None:
        """Give foreign keys of the imported tables other names, where the exchange would have two of one in a schema.

        Args:
            with_triggers: tables of either side that stand aside for it.
        Raises:
            AppBusyError: a table is in use.
        """
        if not with_triggers:
            return
        imported, previous = self._database, self._source(target)
        if target is Side.IMPORTED:
            imported, previous = previous, imported
        await patiently(
            lambda: key_names.give_way(
                self._admin, self._notes, imported=imported, previous=previous, concerned=with_triggers
            )
        )

    async def kept_apart(self, target: Side) -> tuple[set[str], set[str]]:
        """Tables in place, and tables that are to come, that cannot be in the app's schema beside the other side's."""
        source = self._source(target)
        in_place, to_come = await check_names.with_names_of_both(self._admin, self._database, source)
        return in_place | await self._merged(self._database), to_come | await self._merged(source)

    async def _merged(self, schema: str) -> set[str]:
        """MERGE tables, which the server opens only where those are of which they consist, so nowhere else can triggers
        on them be made or dropped."""
        rows = await query(
            self._admin,
            "SELECT TABLE_NAME FROM information_schema.TABLES"  # noqa: S608  # a literal
            f" WHERE TABLE_SCHEMA = {literal(schema)} AND ENGINE = 'MRG_MyISAM';",
        )
        return {table for (table,) in rows}

    async def name_keys(self) -> None:
        """Give foreign keys in place back their names; errors as `give_way`."""
        await patiently(lambda: key_names.take_back(self._admin, self._notes, self._database))

    def _to_stand_aside(self, schema: str, tables: Sequence[str]) -> dict[str, tuple[str, str]]:
        """Where tables of a schema do; written down."""
        numbers = numbered(self._notes, _ASIDE, list(tables)) if tables else {}
        return {table: self._at(names.aside(schema, numbers[table])) for table in tables}

    async def _triggers(self) -> dict[str, list[str]]:
        """Those of the app's schema, by table."""
        rows = await query(
            self._admin,
            "SELECT EVENT_OBJECT_TABLE, TRIGGER_NAME FROM information_schema.TRIGGERS"  # noqa: S608  # a literal
            f" WHERE TRIGGER_SCHEMA = {literal(self._database)};",
        )
        found: dict[str, list[str]] = {}
        for table, trigger in rows:
            found.setdefault(table, []).append(trigger)
        return found

    def _at(self, table: str) -> tuple[str, str]:
        return self._database, table

    def _source(self, target: Side) -> str:
        return self._new if target is Side.IMPORTED else self._old

    async def rename(self, moves: Sequence[str], target: Side) -> None:
        """Move tables, all or none; errors as `bring`."""
        try:
            await self._rename(moves)
            if target is Side.IMPORTED and self._notes.facts.get(_MUST_LOOK):
                await self._note_others()
            self._note(target)
        except ServiceError as cause:
            # Whatever it was, only the server knows: it may have done it and its answer was lost, or do it later.
            try:
                side = await once_it_is_back(self.recover)
            except ServiceError as obstacle:
                raise UnsettledError(f"{cause.text} What came of it is not known: {obstacle.text}") from cause
            if side is not target:
                raise

    async def _rename(self, moves: Sequence[str]) -> None:
        if moves:
            await patiently(lambda: query(self._admin, f"RENAME TABLE {', '.join(moves)};"))

    async def lead_defaults(self) -> None:
        """Have the imported tables, in place, take their defaults from the sequences that came with them.

        Raises:
            AppBusyError, AppUnavailableError, ToolFailedError: some are not led there; it can be repeated.
        """
        await patiently(lambda: sequences.lead(self._admin, self._database, source=self._new, target=self._database))

    async def coming(self, target: Side) -> Collection[str]:
        """The tables that `bring` would put in place."""
        found = await self._look()
        return (found.waiting if target is Side.IMPORTED else found.kept) or []

    async def drop(self) -> None:
        """Forget the tables that are not in place, and the account that loaded.

        Raises:
            InternalError: it is others that are in place than noted, so these are the only ones of their kind.
        """
        await self._end_pending()
        found = await self._look()
        self._require_in_place(found)
        await self._put_away(found)
        await drop_loader(self._admin, self._key)
        # The new ones last: an undo may end between the two, and an app that had no tables before would look as if the
        # imported ones were in place, with the old schema there and no new one.
        await query(
            self._admin,
            f"SET SESSION foreign_key_checks = 0;"
            f" DROP DATABASE IF EXISTS {quoted(self._old)}; DROP DATABASE IF EXISTS {quoted(self._new)};",
        )

    def _require_in_place(self, found: _Found) -> None:
        noted = self._notes.facts.get(_IN_PLACE)
        # A drop that was interrupted has dropped the previous ones first.
        if noted is None or not self._previous or found.kept is None:
            return
        if found.waiting if noted else found.kept:
            where = self._new if noted else self._old
            raise InternalError(
                f"Others of the two sides' tables are in place in {self._database} than the agent has put there. "
                f"Nothing is dropped: what is in {where} may be there alone.",
                next_step=f"See whose tables are in {self._database}; drop the schemas mathison_…_{self._key} by hand "
                "once nothing in them is needed.",
            )

    async def _end_pending(self) -> None:
        """Make sure that the server does not carry out a RENAME later whose client is gone: one that waits for a lock
        goes on waiting, and what was said to be in place would not be.

        Raises:
            AppBusyError: it cannot be ended.
        """
        try:
            async with asyncio.timeout(_PENDING_SECONDS):
                while pending := await self._pending():
                    for session in pending:
                        with contextlib.suppress(ToolFailedError):
                            # It may have ended by itself.
                            await query(self._admin, f"KILL {int(session)};")
                    await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError:
            raise AppBusyError(
                "The server is still at work on an exchange of tables that was interrupted.",
                next_step="The agent tries again by itself.",
            ) from None

    async def _pending(self) -> list[str]:
        """Sessions of ours in which such a RENAME is running."""
        rows = await query(
            self._admin,
            "SELECT ID FROM information_schema.PROCESSLIST WHERE ID <> CONNECTION_ID()"  # noqa: S608  # a name of ours
            # Where a side has no tables, only the other's schema is named.
            f" AND INFO LIKE 'RENAME TABLE %' AND (INFO LIKE '%{self._new}%' OR INFO LIKE '%{self._old}%');",
        )
        return [row[0] for row in rows]


def _move(source: tuple[str, str], target: tuple[str, str]) -> str:
    return f"{'.'.join(map(quoted, source))} TO {'.'.join(map(quoted, target))}"
