"""The loader's child, seen from the agent: SQL text in, what became of it out."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from agent.engines.pg.loading.errors import Failure, explain
from agent.engines.pg.loading.terms import Terms
from agent.engines.pg.server.connection import Login
from agent.jail import Jail
from agent.processes import Child, Command, Pipe, feed, start
from common.errors import ServiceError, ToolFailedError, make_error

MODULE = "agent.engines.pg.loading.loader_child"
SESSION_NAME = "mathison-load"
"""The application_name of the sessions that load."""
LENGTH_BYTES = 4
_JAIL = Jail(address_space_bytes=2 << 30)
"""Room for a statement of the largest size in a few copies; without such it uses 50 MiB."""
_MOST_LINE_BYTES = 1 << 20


@dataclass
class LoadReport:
    """What the child said."""

    counts: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    deferred: list[dict[str, str]] = field(default_factory=list)
    extensions: dict[str, str] = field(default_factory=dict)
    source_version: str = ""
    dumper_version: str = ""
    text_bytes: int = 0
    made: int = 0


SqlWriter: TypeAlias = Callable[[int], Awaitable[None]]
"""Writes SQL text into a pipe; returns when that was all of it, or nobody reads it any more."""


async def load_sql(
    text: AsyncIterable[bytes] | SqlWriter,
    login: Login,
    *,
    server_version_num: int,
    pre_created_extensions: frozenset[str],
    sessions: int,
    terms: Terms,
    on_note: Callable[[str, int], None],
) -> LoadReport:
    """Send SQL text to a database.

    Args:
        text: when it raises, nothing counts as loaded and its error goes through.
        on_note: called with what is being done and the number of rows so far.
    Raises:
        ServiceError: what the text is, or what the server said against it.
    """
    request = json.dumps(
        {
            "connection": {
                "host": login.host,
                "port": login.port,
                "dbname": login.database,
                "user": login.user,
                "password": login.password,
                "application_name": SESSION_NAME,
                "connect_timeout": 10,
                "gssencmode": "disable",
            },
            "server_version_num": server_version_num,
            "pre_created_extensions": sorted(pre_created_extensions),
            "sessions": 1 if terms.before else sessions,
            "is_restricted": terms.is_restricted,
            "is_check": terms.is_check,
            "before": list(terms.before),
            "same": terms.same,
            "settling": list(terms.settling),
            "after": list(terms.after),
            "foreign_servers": sorted(terms.foreign_servers),
            "extension_tables": sorted(terms.extension_tables),
        }
    ).encode()
    request = len(request).to_bytes(LENGTH_BYTES, "big") + request
    async with AsyncExitStack() as stack:
        pipe = stack.enter_context(Pipe())
        command = Command([MODULE], jail=_JAIL, stdin=pipe.reading if callable(text) else None, is_module=True)
        child = await stack.enter_async_context(start(command))
        pipe.close(pipe.reading)
        writing = _write(pipe, request, text) if callable(text) else _feed(child, request, text)
        feeding = asyncio.create_task(writing, name="feed SQL to its loader")
        listening = asyncio.create_task(_listen(child, on_note, server_version_num), name="listen to the loader")
        try:
            await asyncio.wait({feeding, listening}, return_when=asyncio.FIRST_EXCEPTION)
            if feeding.done():
                # Where the upload itself broke, that the child met a cut stream is no news.
                await feeding
            report = await listening
            await feeding
            return report
        finally:
            for task in (feeding, listening):
                task.cancel()
            await asyncio.gather(feeding, listening, return_exceptions=True)


async def _write(pipe: Pipe, request: bytes, write: SqlWriter) -> None:
    """The loader meets the end of the text only when all of it was written well."""
    with suppress(BrokenPipeError):
        await asyncio.to_thread(os.write, pipe.writing, request)
    await write(pipe.writing)
    pipe.close(pipe.writing)


async def _feed(child: Child, request: bytes, chunks: AsyncIterable[bytes]) -> None:
    async def text() -> AsyncGenerator[bytes, None]:
        yield request
        async for chunk in chunks:
            yield chunk
            del chunk

    async with aclosing(text()) as whole:
        await feed(child, whole)


async def _listen(child: Child, on_note: Callable[[str, int], None], server_version_num: int) -> LoadReport:
    report = LoadReport()
    done: dict[str, Any] | None = None
    async for line in _lines(child):
        match line:
            case {"note": str(note), "rows": int(rows)}:
                on_note(note, rows)
            case {"deferred": {"kind": str(), "name": str(), "sql": str()} as deferred}:
                report.deferred.append(deferred)
            case {"extension": str(extension), "schema": str(schema)}:
                report.extensions[extension] = schema
            case {"failed": dict(failure)}:
                raise _error(failure, line, server_version_num)
            case {"done": dict()}:
                done = line
    await child.check()
    if done is None:
        raise ToolFailedError("The loader ended without saying that it loaded everything.")
    report.counts = {name: int(number) for name, number in done["done"].items()}
    report.left_out = {what: int(number) for what, number in done["left_out"].items()}
    report.text_bytes, report.made = int(done["text_bytes"]), int(done["made"])
    report.source_version, report.dumper_version = str(done["source_version"]), str(done["dumper_version"])
    return report


async def _lines(child: Child) -> AsyncGenerator[Any, None]:
    """Its reports; it reads hostile text, so it is not believed to keep to any size."""
    held = b""
    async with aclosing(child.chunks()) as chunks:
        async for chunk in chunks:
            *lines, held = (held + chunk).split(b"\n")
            if len(held) > _MOST_LINE_BYTES:
                raise ToolFailedError("The loader said more than it should.")
            for line in lines:
                yield json.loads(line)


def _error(failure: dict[str, Any], line: dict[str, Any], server_version_num: int) -> ServiceError:
    if "reason" in failure:
        return make_error(str(failure["reason"]), str(failure["text"]), next_step=str(failure["next_step"]))
    return explain(
        Failure(
            line=int(failure["line"]),
            sqlstate=str(failure["sqlstate"]),
            message=str(failure["message"]).rstrip("."),
            head=str(failure["head"]),
            source_version=str(line.get("source_version", "")),
            has_tables=bool(line.get("tables")),
            is_inside_code=bool(failure["is_inside_code"]),
        ),
        server_version_num=server_version_num,
    )
