"""A stream of SQL text into a database, rows and indexes by several sessions at once.

Rows of pg_dump's TABLE DATA entries are dealt out in pieces to all sessions; keys, indexes and foreign keys are made in
parallel afterwards; everything else runs in order in the first session. A transaction around all is not needed: what is
half loaded is dropped. Imports little: it runs in a child that has to stay small.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

from agent.engines.pg.loading.dump_comments import Entry
from agent.engines.pg.loading.row_security import ForcedRowSecurity
from agent.engines.pg.loading.sessions import Session, Settings, SqlFailure
from agent.engines.pg.loading.sqltext import EndOfRows, Event, Rows, Splitter, Statement
from agent.engines.pg.loading.statements import Decision, Judge, Way, copied_table, plain_name
from agent.engines.pg.server.text_errors import TextError, rows_of_an_extension

_KEYS = frozenset({"CONSTRAINT", "INDEX"})
_FOREIGN_KEYS = frozenset({"FK CONSTRAINT"})
IN_PARALLEL = {kind: kinds for kinds in (_KEYS, _FOREIGN_KEYS) for kind in kinds}
"""Kinds of entries, and those that they do not need; pg_dump writes all keys before the first foreign key."""
AFTER_ROWS = frozenset({*IN_PARALLEL, "INDEX ATTACH", "TRIGGER", "RULE", "POLICY", "ROW SECURITY"})
"""Once one of these was made, rows may depend on rows, so that their order counts."""
NOTES = {
    "TABLE DATA": "loading rows",
    "BLOBS": "loading large objects",
    "CONSTRAINT": "building keys",
    "INDEX": "building indexes",
    "FK CONSTRAINT": "checking foreign keys",
    "MATERIALIZED VIEW DATA": "filling materialized views",
}
MOST_DEFERRED = 1000
DEFERRED_BYTES = 64 << 10
_MOST_LATER = 1000
_MOST_TOGETHER = 200
"""INSERT statements that are on their way to the server at once: each answer takes a moment, and the app may wait."""
_TOGETHER_BYTES = 256 << 10
_TABLE = re.compile(rb"CREATE\s+(?:UNLOGGED\s+|FOREIGN\s+)?TABLE\b", re.IGNORECASE)
_MAKES = re.compile(rb"(?:CREATE\s(?!\s*(?:TRIGGER|POLICY|RULE)\b)|ALTER\s+TABLE\s[^;]{0,500}?\bADD\s)", re.IGNORECASE)
_SCHEMA = re.compile(rb"DROP\s+SCHEMA\b", re.IGNORECASE)
_LARGE_OBJECT = re.compile(rb"SELECT\s+pg_catalog\.lo_create\(", re.IGNORECASE)


@dataclass
class Outcome:
    """What has become of the statements so far."""

    statements: int = 0
    tables: int = 0
    large_objects: int = 0
    made: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    deferred: dict[tuple[str, bytes], bytes] = field(default_factory=dict)
    """The statements about each object that was not made, by its kind and name; at most DEFERRED_BYTES of them."""


@dataclass(frozen=True)
class _Block:
    """A COPY FROM stdin."""

    text: bytes
    line: int


@dataclass(frozen=True)
class _Piece:
    """Some of its rows; with `more`, the first part of one long row, whose other parts follow there up to None."""

    block: _Block
    rows: bytes
    more: asyncio.Queue[bytes | None] | None = None


@dataclass(frozen=True)
class _Inserts:
    statements: list[Statement]
    has_standard_strings: bool


@dataclass
class _Job:
    """The statements of one entry, in order."""

    entry: Entry
    statements: list[Statement] = field(default_factory=list)


_Queue: TypeAlias = "asyncio.Queue[_Piece | _Inserts | _Job | None]"


class Loader:
    """Loads one text.

    Attributes:
        outcome: complete once `load` has returned.
        splitter: what it read so far.
        judge: knows the extensions that were asked for.
    """

    def __init__(
        self,
        sessions: Sequence[Session],
        *,
        judge: Judge,
        splitter: Splitter,
        on_note: Callable[[str], None],
    ) -> None:
        """
        Args:
            on_note: called with what is being done, each time that changes.
        """
        self.outcome = Outcome()
        self.splitter = splitter
        self._sessions = sessions
        self._main = sessions[0]
        self.judge = judge
        self._on_note = on_note
        self._note = ""
        self._settings = Settings()
        self._is_after_rows = False
        self._deadlocked: list[_Job] = []
        self._publications: dict[bytes, bytes] = {}
        self._forced_row_security = ForcedRowSecurity(self._main)

    async def load(self, chunks: AsyncIterable[bytes]) -> None:
        """Load the text to its end.

        Raises:
            TextError: it is not what a whole dump looks like.
            SqlFailure: the server refused a statement.
        """
        was_idle = self._main.is_idle
        async with aclosing(self._read(chunks)) as events:
            event = await anext(events, None)
            while event is not None:
                event = await self._take(event, events)
        await self._forced_row_security.put_back()
        if self._main.is_idle is not was_idle:
            raise TextError("ARCHIVE_DAMAGED", "The file ends inside of a transaction.")

    @property
    def rows(self) -> int:
        """How many were loaded so far, by statements that have ended."""
        return sum(session.rows for session in self._sessions)

    async def _read(self, chunks: AsyncIterable[bytes]) -> AsyncGenerator[Event, None]:
        async for chunk in chunks:
            for event in self.splitter.feed(chunk):
                yield event
        for event in self.splitter.finish():
            yield event

    async def _take(self, event: Event, events: AsyncGenerator[Event, None]) -> Event | None:
        """Do what comes next; returns the first event that was not part of it."""
        if not isinstance(event, Statement):
            raise RuntimeError("rows without their COPY")
        kind = event.entry.kind if event.entry else ""
        self._say(kind)
        self._is_after_rows |= kind in AFTER_ROWS
        decision = self.judge.decide(event.text, event.line)
        if decision.way is not Way.FILL:
            await self._forced_row_security.put_back()
        if self._main.is_idle:
            if kind == "TABLE DATA" and not self._is_after_rows and _are_rows(event, decision):
                return await self._spread_rows(event, events)
            if kind in IN_PARALLEL and decision.way is Way.RUN:
                return await self._spread_jobs(event, events)
        if decision.way is Way.ROWS:
            await self._copy_alone(event, events)
        elif decision.way is Way.NO_ROWS:
            await self._require_no_rows(event, decision, events)
        elif decision.way is Way.INSERT:
            return await self._insert(event, events)
        else:
            await self._run(event, decision)
        return await anext(events, None)

    def _say(self, kind: str) -> None:
        note = NOTES.get(kind, "making tables and other objects")
        if note != self._note:
            self._note = note
            self._on_note(note)

    # One after another.

    async def _run(self, statement: Statement, decision: Decision) -> None:
        text, line, session = decision.text or statement.text, statement.line, self._main
        self._count(statement)
        match decision.way:
            case Way.RUN:
                await session.run(text, line)
            case Way.SETTING:
                await session.run(text, line)
                self._settings.add(text, line)
            case Way.REMOVE:
                await self._remove(text, line)
            case Way.COMMENT_IF_OWN:
                await self._comment_if_own(text, line)
            case Way.EXTENSION:
                await self._make_extension(text, line, schema=decision.name)
            case Way.FILL:
                await self._forced_row_security.lift(line)
                await session.run(text, line)
            case Way.SKIP:
                self.outcome.left_out[decision.what] += 1
            case Way.PUBLICATION:
                await session.run(text, line)
                name = plain_name(decision.name)
                self._publications[name] = _with_statement(self._publications.get(name, b""), text)
            case Way.DEFER:
                if decision.what == "publication":
                    await self._unmake_publication(decision, line)
                self._defer((decision.what, decision.name), text)
        self.splitter.has_standard_strings = session.has_standard_strings

    async def _insert(self, first: Statement, events: AsyncIterator[Event]) -> Event | None:
        inserts, event = await self._together(first, events)
        await self._main.insert(inserts.statements, has_standard_strings=inserts.has_standard_strings)
        self.splitter.has_standard_strings = self._main.has_standard_strings
        return event

    async def _together(self, first: Statement, events: AsyncIterator[Event]) -> tuple[_Inserts, Event | None]:
        """INSERT statements that follow one another, as many as are sent at once; and the first event after them."""
        has_standard_strings = self.splitter.has_standard_strings
        found, size, event = [first], len(first.text), await anext(events, None)
        while isinstance(event, Statement) and event.entry is first.entry and len(found) < _MOST_TOGETHER:
            size += len(event.text)
            if size > _TOGETHER_BYTES or self.judge.decide(event.text, event.line).way is not Way.INSERT:
                break
            found.append(event)
            event = await anext(events, None)
        for statement in found:
            self._count(statement)
        return _Inserts(found, has_standard_strings), event

    def _defer(self, thing: tuple[str, bytes], text: bytes) -> None:
        deferred = self.outcome.deferred
        if thing in deferred or len(deferred) < MOST_DEFERRED:
            deferred[thing] = _with_statement(deferred.get(thing, b""), text)

    async def _unmake_publication(self, decision: Decision, line: int) -> None:
        """Drop one that was made before it was known that it has to be left out: pg_dump adds what is in it later."""
        made = self._publications.pop(plain_name(decision.name), None)
        if made is not None:
            await self._remove(b"DROP PUBLICATION " + decision.name, line)
            self._defer((decision.what, decision.name), made.removesuffix(b";\n"))

    async def _remove(self, text: bytes, line: int) -> None:
        try:
            await self._main.run(text, line)
        except SqlFailure as failure:
            # What was there before the dump may be in a schema of its own.
            is_needed = failure.is_needed and _SCHEMA.match(text)
            if not (failure.is_missing or is_needed) or not self._main.is_idle:
                raise

    async def _comment_if_own(self, text: bytes, line: int) -> None:
        try:
            await self._main.run(text, line)
        except SqlFailure as failure:
            if not failure.is_forbidden or not self._main.is_idle:
                raise

    async def _make_extension(self, text: bytes, line: int, *, schema: bytes) -> None:
        """Dumps of hosters that keep extensions in a schema of theirs may be without that."""
        try:
            await self._main.run(text, line)
        except SqlFailure as failure:
            if not failure.is_missing or not self._main.is_idle:
                raise
            await self._main.run(b"CREATE SCHEMA IF NOT EXISTS " + schema, line)
            await self._main.run(text, line)

    async def _require_no_rows(self, statement: Statement, decision: Decision, events: AsyncIterator[Event]) -> None:
        self._count(statement)
        if isinstance(await anext(events, None), Rows):
            raise rows_of_an_extension(statement.line, decision.name)

    async def _copy_alone(self, statement: Statement, events: AsyncIterator[Event]) -> None:
        self._count(statement)
        async with self._main.copy(statement.text, statement.line) as copy:
            async for event in events:
                if not isinstance(event, Rows):
                    return
                await copy.write(event.data)

    def _count(self, statement: Statement) -> None:
        self.outcome.statements += 1
        self.outcome.made += bool(_MAKES.match(statement.text) and not _is_foreign_key(statement))
        if _TABLE.match(statement.text):
            self.outcome.tables += 1
        elif _LARGE_OBJECT.match(statement.text):
            self.outcome.large_objects += 1

    # In parallel.

    @asynccontextmanager
    async def _workers(self) -> AsyncIterator[_Queue]:
        """All sessions do what is put into the queue; at the end of the block everything is done."""
        queue: _Queue = asyncio.Queue(len(self._sessions))
        try:
            async with asyncio.TaskGroup() as group:
                for number, session in enumerate(self._sessions):
                    group.create_task(self._work(session, queue), name=f"load in session {number}")
                yield queue
                for _ in self._sessions:
                    await queue.put(None)
        except BaseExceptionGroup as failures:
            raise _first(failures) from None

    async def _work(self, session: Session, queue: _Queue) -> None:
        if session is not self._main:
            await session.catch_up(self._settings)
        unit = await queue.get()
        while unit is not None:
            if isinstance(unit, _Piece):
                unit = await self._copy(session, unit, queue)
                continue
            if isinstance(unit, _Inserts):
                await session.insert(unit.statements, has_standard_strings=unit.has_standard_strings)
            else:
                await self._do(session, unit)
            unit = await queue.get()

    async def _copy(self, session: Session, piece: _Piece, queue: _Queue) -> _Piece | _Inserts | _Job | None:
        """Copy pieces as long as they are of the same block; returns the first unit that is not."""
        block = piece.block
        unit: _Piece | _Inserts | _Job | None = piece
        async with session.copy(block.text, block.line) as copy:
            while isinstance(unit, _Piece) and unit.block is block:
                await copy.write(unit.rows)
                while unit.more and (part := await unit.more.get()) is not None:
                    await copy.write(part)
                unit = await queue.get()
        return unit

    async def _do(self, session: Session, job: _Job) -> None:
        while job.statements:
            try:
                await session.run(job.statements[0].text, job.statements[0].line)
            except SqlFailure as failure:
                if not failure.is_deadlock:
                    raise
                self._deadlocked.append(job)
                return
            del job.statements[0]

    async def _spread_rows(self, statement: Statement, events: AsyncGenerator[Event, None]) -> Event | None:
        """Rows of one table after another, for as long as nothing else comes."""
        event: Event | None = statement
        async with self._workers() as queue:
            while isinstance(event, Statement) and event.entry and event.entry.kind == "TABLE DATA":
                decision = self.judge.decide(event.text, event.line)
                if not _are_rows(event, decision):
                    break
                if decision.way is Way.ROWS:
                    self._count(event)
                    await self._deal_out(_Block(event.text, event.line), events, queue)
                    event = await anext(events, None)
                else:
                    inserts, event = await self._together(event, events)
                    await queue.put(inserts)
        return event

    async def _deal_out(self, block: _Block, events: AsyncIterator[Event], queue: _Queue) -> None:
        more: asyncio.Queue[bytes | None] | None = None
        is_empty = True
        async for event in events:
            if isinstance(event, EndOfRows):
                break
            if not isinstance(event, Rows):
                raise RuntimeError("a COPY without its end")
            is_empty = False
            if more is None:
                more = None if event.ends_row else asyncio.Queue(1)
                await queue.put(_Piece(block, event.data, more))
                continue
            await more.put(event.data)
            if event.ends_row:
                await more.put(None)
                more = None
        if is_empty:
            await queue.put(_Piece(block, b""))

    async def _spread_jobs(self, statement: Statement, events: AsyncGenerator[Event, None]) -> Event | None:
        """Entries that do not need each other; comments on what they make come afterwards."""
        event: Event | None = statement
        kinds = IN_PARALLEL[statement.entry.kind] if statement.entry else ()
        later: list[Statement] = []
        async with self._workers() as queue:
            job: _Job | None = None
            while isinstance(event, Statement) and event.entry and len(later) < _MOST_LATER:
                if self.judge.decide(event.text, event.line).way is not Way.RUN:
                    break
                if event.entry.kind != "COMMENT" and event.entry.kind not in kinds:
                    break
                self._say(event.entry.kind)
                self._count(event)
                if event.entry.kind == "COMMENT":
                    later.append(event)
                else:
                    if job is None or job.entry is not event.entry:
                        if job is not None:
                            await queue.put(job)
                        job = _Job(event.entry)
                    job.statements.append(event)
                event = await anext(events, None)
            if job is not None:
                await queue.put(job)
        deadlocked, self._deadlocked = self._deadlocked, []
        for one in [*(left for job in deadlocked for left in job.statements), *later]:
            await self._main.run(one.text, one.line)
        return event


def _with_statement(text: bytes, statement: bytes) -> bytes:
    return (text + statement + b";\n")[:DEFERRED_BYTES]


def _is_foreign_key(statement: Statement) -> bool:
    return statement.entry is not None and statement.entry.kind in _FOREIGN_KEYS


def _are_rows(statement: Statement, decision: Decision) -> bool:
    """It can be dealt out: each line is a row, or each statement inserts."""
    if decision.way is Way.ROWS:
        return copied_table(statement.text)[1]
    return decision.way is Way.INSERT


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure that ended a group."""
    for failure in failures.exceptions:
        return _first(failure) if isinstance(failure, BaseExceptionGroup) else failure
    raise RuntimeError("an empty group")
