"""The sessions that load: one statement at a time, and the same settings in all of them.

psycopg sends bytes as they are and the server knows the text's encoding from its own SET client_encoding, so a dump in
LATIN1 needs no decoding here. Imports little: it runs in a child that has to stay small.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, NoReturn

import psycopg
from psycopg import pq
from psycopg.copy import AsyncLibpqWriter

from agent.engines.pg.loading.sqltext import Statement
from agent.engines.pg.loading.text_encodings import is_of_servers
from agent.engines.pg.server.text_errors import joined, read_otherwise

_MOST_WORK_MEMORY_BYTES = 256 << 20
_HEAD_BYTES = 200
_UNSENT_BYTES = 256 << 10
"""How much libpq may hold of what the server has not taken yet; its buffer doubles as it grows."""


class SqlFailure(Exception):
    """A statement failed.

    Attributes:
        line: where it begins in the text.
        sqlstate: empty when the connection broke.
        head: how the statement begins.
        is_inside_code: a function that the statement called failed, or a row of its COPY.
    """

    def __init__(self, line: int, sqlstate: str, message: str, *, head: bytes, is_inside_code: bool = False) -> None:
        super().__init__(message)
        self.line = line
        self.sqlstate = sqlstate
        self.message = message
        self.head = head
        self.is_inside_code = is_inside_code

    @property
    def is_deadlock(self) -> bool:
        return self.sqlstate == "40P01"

    @property
    def is_missing(self) -> bool:
        """The object that the statement is about does not exist: SQLSTATE undefined_* and invalid_schema_name."""
        return self.sqlstate in ("42P01", "42703", "42704", "42883", "3F000", "42P02")

    @property
    def is_forbidden(self) -> bool:
        """The role has not the rights for it."""
        return self.sqlstate == "42501"

    @property
    def is_needed(self) -> bool:
        """Something depends on what the statement would drop."""
        return self.sqlstate == "2BP01"


def session_options(server_version_num: int) -> str:
    """What each session is started with, as libpq's `options`.

    Half-loaded databases are dropped, so nothing has to be on disk before the end; a session that waits for its turn
    may wait long; one whose agent is gone should not work on. Role or database may read arrays and comparisons another
    way than a dump means them.
    """
    settings = {
        "synchronous_commit": "off",
        "statement_timeout": "0",
        "lock_timeout": "0",
        "idle_in_transaction_session_timeout": "0",
        "default_transaction_read_only": "off",
        "default_transaction_isolation": r"read\ committed",
        "max_parallel_maintenance_workers": "0",
        "array_nulls": "on",
        "transform_null_equals": "off",
    }
    if server_version_num >= 140000:
        settings |= {"idle_session_timeout": "0", "client_connection_check_interval": "5s"}
    if server_version_num >= 170000:
        settings |= {"transaction_timeout": "0"}
    return " ".join(f"-c {name}={value}" for name, value in settings.items())


class Settings:
    """Statements that changed the main session, for the others to repeat; the same statement again replaces itself."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, tuple[int, int]] = {}
        self._latest = 0

    def add(self, text: bytes, line: int) -> None:
        self._latest += 1
        self._numbers.pop(text, None)
        self._numbers[text] = (self._latest, line)

    def since(self, number: int) -> tuple[list[tuple[bytes, int]], int]:
        """Texts and lines of those after a number, in order; and the number for the next call."""
        news = []
        for text, (own, line) in reversed(self._numbers.items()):
            if own <= number:
                break
            news.append((text, line))
        return news[::-1], self._latest


class Session:
    """One connection in autocommit mode.

    Attributes:
        rows: how many were inserted or copied.
    """

    def __init__(self, connection: psycopg.AsyncConnection[Any], *, takes_one: bool = False) -> None:
        self.rows = 0
        self._connection = connection
        self._takes_one = takes_one
        self._known_settings = 0

    @classmethod
    async def open(cls, conninfo: str, *, takes_one: bool) -> Session:
        """
        Args:
            takes_one: INSERT statements come one by one, and the server refuses a text that it reads as several.
        Raises:
            psycopg.OperationalError: there is no way in.
        """
        session = cls(await _connect(conninfo), takes_one=takes_one)
        if not is_of_servers(session._encoding):
            # Of a setting of the role or the database; what is in force until the dump says its own.
            encoding = session._connection.info.parameter_status("server_encoding")
            await session.close()
            session = cls(await _connect(conninfo, encoding=encoding), takes_one=takes_one)
        await session._take_work_memory()
        return session

    async def _take_work_memory(self) -> None:
        """More memory for building indexes, in proportion to what the server was given."""
        cursor = await self._connection.execute(
            "SELECT greatest(pg_catalog.pg_size_bytes(current_setting('maintenance_work_mem')), least("
            "pg_catalog.pg_size_bytes(current_setting('shared_buffers')), %s)) / 1024",
            [_MOST_WORK_MEMORY_BYTES],
        )
        row = await cursor.fetchone()
        if row is not None:
            await self._connection.execute("SELECT set_config('maintenance_work_mem', %s, false)", [f"{row[0]}kB"])

    @property
    def is_idle(self) -> bool:
        """No transaction is open."""
        return self._connection.info.transaction_status == pq.TransactionStatus.IDLE

    @property
    def has_standard_strings(self) -> bool:
        """As the server says: whether a backslash in '...' is an ordinary character."""
        return self._connection.pgconn.parameter_status(b"standard_conforming_strings") == b"on"

    @property
    def _encoding(self) -> bytes:
        """What the server reads text in, as it says."""
        return self._connection.pgconn.parameter_status(b"client_encoding") or b""

    def _require_readable(self, line: int) -> None:
        """Code of a file can set what no statement of it may."""
        if not is_of_servers(self._encoding):
            raise read_otherwise(line, self._encoding)

    async def run(self, text: bytes, line: int) -> None:
        """Execute exactly one statement; the server refuses a text that it reads as several.

        Raises:
            SqlFailure: it failed, or it is a COPY.
            TextError: the server would read it otherwise than it was cut; it was not sent. So for all that is sent.
        """
        self._require_readable(line)
        try:
            # Asking for binary results makes psycopg use the extended protocol, which takes one statement only.
            await self._connection.cursor().execute(text, binary=True)
        except psycopg.Error as failure:
            _fail(failure, text, line)

    async def names(self, query: bytes, line: int) -> list[bytes]:
        """The first column of a query of ours, as bytes in the session's encoding; SqlFailure as in `run`."""
        cursor = self._connection.cursor()
        try:
            await cursor.execute(query, binary=True)
        except psycopg.Error as failure:
            _fail(failure, query, line)
        result = cursor.pgresult
        return [result.get_value(row, 0) or b"" for row in range(result.ntuples)] if result else []

    async def insert(self, statements: Sequence[Statement], *, has_standard_strings: bool) -> None:
        """Execute INSERT statements, and all of them or none where no transaction is open.

        Where the server is to refuse a text that it reads as several, they are sent one by one without waiting for each
        answer.

        Args:
            statements: in each text one or more.
            has_standard_strings: how the text was cut into statements; else one might hide in another's string.
        """
        first = statements[0]
        if has_standard_strings != self.has_standard_strings:
            raise SqlFailure(
                first.line,
                "42601",
                "the meaning of backslashes in strings is not clear",
                head=first.text[:_HEAD_BYTES],
            )
        self._require_readable(first.line)
        if self._takes_one and len(statements) > 1:
            await self._insert_each(statements)
            return
        for statement in statements:
            cursor = self._connection.cursor()
            try:
                await cursor.execute(statement.text, binary=self._takes_one)
            except psycopg.Error as failure:
                _fail(failure, statement.text, statement.line)
            self.rows += max(cursor.rowcount, 0)
            while cursor.nextset():
                self.rows += max(cursor.rowcount, 0)

    async def _insert_each(self, statements: Sequence[Statement]) -> None:
        cursors = [self._connection.cursor() for _ in statements]
        try:
            async with self._connection.pipeline():
                for statement, cursor in zip(statements, cursors, strict=True):
                    await cursor.execute(statement.text, binary=True)
        except psycopg.Error as failure:
            number = next((number for number, cursor in enumerate(cursors) if cursor.rowcount < 0), 0)
            _fail(failure, statements[number].text, statements[number].line)
        self.rows += sum(max(cursor.rowcount, 0) for cursor in cursors)

    @contextlib.asynccontextmanager
    async def copy(self, text: bytes, line: int) -> AsyncIterator[psycopg.AsyncCopy]:
        """Rows that are written in the block go into the table of a COPY FROM stdin."""
        self._require_readable(line)
        cursor = self._connection.cursor()
        try:
            async with cursor.copy(text, writer=AsyncLibpqWriter(cursor, flush_threshold=_UNSENT_BYTES)) as copy:
                yield copy
        except psycopg.Error as failure:
            _fail(failure, text, line)
        self.rows += max(cursor.rowcount, 0)

    async def catch_up(self, settings: Settings) -> None:
        """Repeat what came since the last call."""
        news, self._known_settings = settings.since(self._known_settings)
        for text, line in news:
            await self.run(text, line)

    async def close(self) -> None:
        await self._connection.close()


async def _connect(conninfo: str, *, encoding: str | None = None) -> psycopg.AsyncConnection[Any]:
    return await psycopg.AsyncConnection.connect(
        conninfo, autocommit=True, prepare_threshold=None, client_encoding=encoding
    )


def _fail(failure: psycopg.Error, text: bytes, line: int) -> NoReturn:
    message = failure.diag.message_primary or joined(str(failure)) or type(failure).__name__
    raise SqlFailure(
        line,
        failure.sqlstate or "",
        message[:500],
        head=text[:_HEAD_BYTES],
        is_inside_code=bool(failure.diag.context),
    ) from failure
