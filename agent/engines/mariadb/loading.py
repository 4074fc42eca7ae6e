"""An upload loaded into a new schema, by an account that may do nothing elsewhere and is dropped afterwards.

The text goes through two jails: one decides about each statement (`filter_child`), the other is the client program,
without local files, client commands, or the right to start anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace

from agent.engines.mariadb import names
from agent.engines.mariadb.catalog import Schema
from agent.engines.mariadb.client import WITHIN_SECONDS, error_of_load, literal, query, quoted
from agent.engines.mariadb.settings import Login
from agent.jail import PARSER, Jail
from agent.limits import Limits
from agent.processes import Child, Command, feed, start
from agent.unpacking import peeked, unpacked
from common.errors import (
    ArchiveWrongKindError,
    InternalError,
    ToolFailedError,
    make_error,
)
from common.headers import ArchiveHeader

_FILTER = Jail(address_space_bytes=2 << 30)
_STATEMENT_SECONDS = 3600
"""Most time for one statement of an upload: a large index takes long, but one that only waits ends some day."""
_OTHERS = {
    b"PGDMP": "a dump of PostgreSQL",
    b"SQLite format 3": "a SQLite database",
    b"REDIS": "a snapshot of Redis",
    b"-- PostgreSQL": "a dump of PostgreSQL",
    b"--\n-- PostgreSQL": "a dump of PostgreSQL",
}
_HEAD_BYTES = 64
LOCK_SECONDS = 30
"""Most time that a drop waits for a session that is still at work."""


@dataclass(frozen=True)
class Loaded:
    """What an upload turned out to be.

    Attributes:
        server: version of the server that it comes from, as the dump says it; empty: it says none.
    """

    tables: int
    server: str
    header: ArchiveHeader | None


async def make_beside(admin: Login, schema: Schema, key: str) -> Login:
    """Make the new schema and the account that fills it; what is there of an earlier try is dropped first."""
    new, user, password = names.new_schema(key), names.loader(key), secrets.token_hex(24)
    await drop_beside(admin, key)
    await query(
        admin,
        f"CREATE DATABASE {quoted(new)} CHARACTER SET {schema.charset} COLLATE {schema.collation};"
        f"CREATE USER {literal(user)}@'%' IDENTIFIED BY {literal(password)};"
        f"GRANT ALL PRIVILEGES ON {_grantable(new)}.* TO {literal(user)}@'%';",
    )
    return replace(admin, user=user, password=password)


async def drop_beside(admin: Login, key: str) -> None:
    """Drop the new schema and its account; what is not there is fine."""
    await drop_loader(admin, key)
    await query(
        admin,
        f"SET SESSION lock_wait_timeout = {LOCK_SECONDS}; DROP DATABASE IF EXISTS {quoted(names.new_schema(key))};",
    )


async def drop_loader(admin: Login, key: str) -> None:
    """End the account that loaded, and its sessions where the admin may; what is not there is fine."""
    user = literal(names.loader(key))
    with contextlib.suppress(ToolFailedError):
        # There are none as a rule: they end with the client, but for a statement that takes long.
        await query(admin, f"KILL USER {user};")
    await query(admin, f"DROP USER IF EXISTS {user}@'%';")


async def load(
    loader: Login, upload: AsyncIterator[bytes], key: str, limits: Limits, *, takes_programs: bool = False
) -> Loaded:
    """Carry out what of an upload may be carried out.

    Args:
        takes_programs: whether views, triggers, routines and events are taken, or refused.
    Raises:
        ArchiveError: the file's fault, by class.
        AppUnavailableError, NoSpaceError: the server's.
        Whatever the upload raises.
    """
    async with unpacked(upload, limits=limits) as content:
        head, chunks = await peeked(content.chunks, least_bytes=_HEAD_BYTES)
        for beginning, kind in _OTHERS.items():
            if head.startswith(beginning):
                raise ArchiveWrongKindError(f"The file is {kind}, not a dump of MariaDB or MySQL.")
        options = [names.new_schema(key)] if takes_programs else []
        argv = [
            str(loader.client),
            *loader.options(),
            "--batch",
            "--binary-mode",
            "--local-infile=0",
            "--max-allowed-packet=1G",
            f"--database={names.new_schema(key)}",
        ]
        async with (
            aclosing(chunks),
            start(Command(["agent.engines.mariadb.filter_child", *options], jail=_FILTER, is_module=True)) as judge,
            start(Command(argv, jail=PARSER, environment=loader.environment())) as client,
        ):
            await client.write(
                f"SET SESSION sql_mode=''; {WITHIN_SECONDS.format(seconds=_STATEMENT_SECONDS)}\n".encode()
            )
            return await _pass_through(chunks, judge, client, loader)


async def _pass_through(chunks: AsyncIterator[bytes], judge: Child, client: Child, loader: Login) -> Loaded:
    feeding = asyncio.create_task(_feed_whole(judge, chunks), name="feed a dump to its judge")
    draining = asyncio.create_task(_drain(client), name="drain the client's output")
    try:
        if not await _forward(judge, client):
            # A statement failed; what comes after it does not matter.
            await draining
            await _check(client, loader)
            raise ToolFailedError("The client program ended before it had read all of the dump.")
        # First what the upload itself says: when it was cut, that the judge met a cut text is no news.
        await feeding
        report = await _report(judge)
        if reason := report.get("reason"):
            client.abort_stdin()
            raise make_error(str(reason), str(report["text"]), next_step=str(report["next_step"]))
        await client.close_stdin()
        await draining
        await _check(client, loader)
    finally:
        for task in (feeding, draining):
            task.cancel()
        await asyncio.gather(feeding, draining, return_exceptions=True)
    header = str(report.get("header", ""))
    return Loaded(
        int(report["tables"]),
        str(report.get("server", "")),
        ArchiveHeader.from_json(header.encode()) if header else None,
    )


async def _forward(judge: Child, client: Child) -> bool:
    """Statements from one to the other; False when the client stopped reading, because one failed."""
    try:
        async for piece in judge.chunks():
            await client.write(piece)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


async def _check(client: Child, loader: Login) -> None:
    try:
        await client.check()
    except ToolFailedError as failure:
        raise error_of_load(failure.text, loader) from failure


async def _drain(client: Child) -> None:
    async for _ in client.chunks():
        pass


async def _feed_whole(judge: Child, chunks: AsyncIterator[bytes]) -> None:
    try:
        await feed(judge, chunks)
    except BaseException:
        # The judge may end now; whoever waits for it meets this error before taking anything for complete.
        judge.abort_stdin()
        raise


async def _report(judge: Child) -> dict[str, str | int]:
    await judge.check()
    try:
        report: dict[str, str | int] = json.loads(judge.stderr_tail.splitlines()[-1])
    except (ValueError, IndexError) as failure:
        raise InternalError("What was found in the dump cannot be read.") from failure
    return report


def _grantable(schema: str) -> str:
    """In a grant, `_` in a name stands for any character."""
    return quoted(schema.replace("_", "\\_"))
