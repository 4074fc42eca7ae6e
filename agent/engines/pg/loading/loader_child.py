"""The jailed child of `load`: a request and then SQL text on stdin, reports as lines of JSON on stdout.

It connects first and is confined before it reads the first byte of SQL. The last line, `done` or `failed`, and the exit
status have to agree; without both nothing was loaded. Imports little: it has to stay small.
"""

from __future__ import annotations

import asyncio
import codecs
import json
import os
import socket
import sys
import time
from collections.abc import AsyncGenerator
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from agent.engines.pg.loading.check_session import CheckSession
from agent.engines.pg.loading.loader import Loader, Outcome
from agent.engines.pg.loading.restricted import RestrictedJudge
from agent.engines.pg.loading.sessions import Session, SqlFailure, session_options
from agent.engines.pg.loading.sqltext import Splitter
from agent.engines.pg.loading.statements import Judge, There
from agent.engines.pg.server.text_errors import (
    DISK_FULL,
    MARK,
    OUT_OF_LOCKS,
    TextError,
    changed_by_somebody,
    joined,
    refused_by_check,
)
from agent.jail import enter_from_argv
from common.writing import write_all

LENGTH_BYTES = 4
"""The request is JSON, with its length before it in this many bytes, the highest first."""
REPORT_EVERY_SECONDS = 0.5
_READ_BYTES = 512 << 10
"""Pieces of this size are as fast as larger ones, and some ten of them are held at a time."""
_CODECS = (
    *("ascii", "utf_8", "latin_1", "koi8_r", "koi8_u", "cp866", "cp874", "euc_jp", "euc_kr", "euc_jis_2004", "gb2312"),
    *(f"iso8859_{number}" for number in (*range(2, 11), *range(13, 17))),
    *(f"cp{number}" for number in range(1250, 1259)),
)
"""What the server's messages may be in; in the jail no module can be loaded any more."""


class _Reporter:
    def __init__(self) -> None:
        self._note = ""
        self._reported_at = 0.0
        self.loader: Loader | None = None

    def note(self, note: str) -> None:
        self._note = note
        self.progress()

    def progress(self) -> None:
        self._reported_at = time.monotonic()
        self.write({"note": self._note, "rows": self.loader.rows if self.loader else 0})

    def progress_sometimes(self) -> None:
        if time.monotonic() - self._reported_at > REPORT_EVERY_SECONDS:
            self.progress()

    def write(self, report: dict[str, Any]) -> None:
        write_all(1, json.dumps(report).encode() + b"\n")


def main() -> None:
    """Read the request, load, report; exit status 0 only when all of it was loaded."""
    for name in _CODECS:
        codecs.lookup(name)
    request = _read_request()
    reporter = _Reporter()
    failure: dict[str, Any]
    try:
        asyncio.run(_load(request, reporter))
        return
    except TextError as error:
        failure = {"reason": error.reason, "text": error.text, "next_step": error.next_step}
    except SqlFailure as error:
        head = error.head.decode(errors="replace")
        failure = {
            "line": error.line,
            "sqlstate": error.sqlstate,
            "message": error.message,
            "head": head,
            "is_inside_code": error.is_inside_code,
        }
    except MemoryError:
        text = "A statement of the dump needs more memory than an import may use."
        failure = {"reason": "LIMIT_EXCEEDED", "text": text, "next_step": "Make the dump without --inserts."}
    loader = reporter.loader
    facts = {"source_version": loader.splitter.facts.source_version, "tables": loader.outcome.tables} if loader else {}
    reporter.write({"failed": failure, **facts})
    # Not by the ordinary way: sessions that wait for the server would be waited for.
    os._exit(1)


def _read_request() -> dict[str, Any]:
    length = int.from_bytes(_read_exactly(LENGTH_BYTES), "big")
    request: dict[str, Any] = json.loads(_read_exactly(length))
    return request


def _read_exactly(size: int) -> bytes:
    """From stdin and no byte more, since the rest is for the jail."""
    found = b""
    while len(found) < size:
        piece = os.read(0, size - len(found))
        if not piece:
            sys.exit("the request is cut off")
        found += piece
    return found


async def _load(request: dict[str, Any], reporter: _Reporter) -> None:
    sessions: list[Session] = [CheckSession()] if request["is_check"] else await _connect(request)
    enter_from_argv()
    splitter = Splitter(joins_inserts=not request["is_restricted"])
    loader = Loader(sessions, judge=_judge(request), splitter=splitter, on_note=reporter.note)
    reporter.loader = loader
    await _run_ours(sessions[0], request["before"])
    kept = await _answers(sessions[0], request["same"])
    await loader.load(_stdin(reporter))
    await _run_ours(sessions[0], request["settling"])
    await _require_same(sessions[0], request["same"], kept)
    await _run_ours(sessions[0], request["after"])
    for session in sessions:
        await session.close()
    _report_done(loader, reporter)


def _judge(request: dict[str, Any]) -> Judge:
    there = There(
        extensions=frozenset(name.encode() for name in request["pre_created_extensions"]),
        foreign_servers=frozenset(name.encode() for name in request["foreign_servers"]),
        extension_tables=frozenset((schema.encode(), table.encode()) for schema, table in request["extension_tables"]),
    )
    version_num = request["server_version_num"]
    if not request["is_restricted"]:
        return Judge(there, server_version_num=version_num)
    return RestrictedJudge(there, server_version_num=version_num, is_in_transaction=bool(request["before"]))


async def _run_ours(session: Session, statements: list[str]) -> None:
    """Statements around the dump; a lock that is not had in time means that the app is busy."""
    for statement in statements:
        try:
            await session.run(statement.encode(), 0)
        except SqlFailure as failure:
            if failure.sqlstate in ("55P03", "40P01"):
                raise TextError("APP_BUSY", f"The app holds its tables: {failure.message}.") from failure
            if failure.sqlstate == "P0001":
                raise refused_by_check(failure.message) from failure
            if failure.sqlstate == "53100":
                raise TextError(
                    "NO_SPACE",
                    f"The disk of the PostgreSQL server is full: {failure.message}.",
                    next_step=DISK_FULL,
                ) from failure
            next_step = OUT_OF_LOCKS if failure.sqlstate == "53200" else ""
            raise TextError("TOOL_FAILED", f"PostgreSQL: {failure.message}.", next_step=next_step) from failure


async def _answers(session: Session, queries: str) -> list[bytes]:
    """What queries answer that a query of ours says; nothing where there is none."""
    texts = await session.names(queries.encode(), 0) if queries else []
    return [answer for text in texts for answer in await session.names(text, 0)]


async def _require_same(session: Session, queries: str, kept: list[bytes]) -> None:
    try:
        now = await _answers(session, queries)
    except SqlFailure as failure:
        if failure.sqlstate[:2] != "42":
            raise
        # Something that could be asked for is gone, or may not be read any more.
        now = []
    if now == kept:
        return
    (own_before, all_before), (own_now, all_now) = _told_apart(kept), _told_apart(now)
    if own_now != own_before:
        raise refused_by_check("the file touched the previous data")
    what = {what for what in all_before.keys() | all_now.keys() if all_before.get(what) != all_now.get(what)}
    raise changed_by_somebody({one.decode() for one in what})


def _told_apart(answers: list[bytes]) -> tuple[set[bytes], dict[bytes, bytes]]:
    """What only this transaction can have changed, and of the rest a sum of all by what it is."""
    marked = [answer.split(MARK.encode()) for answer in answers if MARK.encode() in answer]
    own = {answer for answer in answers if MARK.encode() not in answer}
    own |= {what + own_sum for what, own_sum, _ in marked if own_sum}
    return own, {what: all_sum for what, _, all_sum in marked}


async def _connect(request: dict[str, Any]) -> list[Session]:
    """As many sessions as wanted, or as there is room for; at least one."""
    options = session_options(request["server_version_num"])
    conninfo = make_conninfo(**_resolved(request["connection"]), options=options)
    sessions: list[Session] = []
    try:
        while len(sessions) < request["sessions"]:
            sessions.append(await Session.open(conninfo, takes_one=request["is_restricted"]))
    except psycopg.OperationalError as failure:
        if not sessions:
            said = joined(str(failure)).splitlines()[-1]
            text = f"PostgreSQL does not let the role for the import in: {said}"
            raise TextError("APP_UNAVAILABLE", text) from failure
    return sessions


def _resolved(connection: dict[str, Any]) -> dict[str, Any]:
    """With the host's addresses: psycopg would look them up in a thread, and the jail allows none to be left."""
    host = connection["host"]
    if host.startswith("/"):
        return connection
    try:
        found = socket.getaddrinfo(host, connection["port"], type=socket.SOCK_STREAM)
    except OSError:
        return connection
    addresses = list(dict.fromkeys(str(address[4][0]) for address in found))
    return {**connection, "host": ",".join([host] * len(addresses)), "hostaddr": ",".join(addresses)}


async def _stdin(reporter: _Reporter) -> AsyncGenerator[bytes, None]:
    """In pieces as large as can be; a StreamReader would copy all of it twice more."""
    os.set_blocking(0, False)
    while True:
        try:
            chunk = os.read(0, _READ_BYTES)
        except BlockingIOError:
            await _readable()
            continue
        if not chunk:
            return
        yield chunk
        reporter.progress_sometimes()


async def _readable() -> None:
    """Wait for stdin. Watched only meanwhile: a reader would be called in each turn of the loop."""
    loop = asyncio.get_running_loop()
    is_readable = asyncio.Event()
    loop.add_reader(0, is_readable.set)
    try:
        await is_readable.wait()
    finally:
        loop.remove_reader(0)


def _report_done(loader: Loader, reporter: _Reporter) -> None:
    outcome: Outcome = loader.outcome
    for (kind, name), text in outcome.deferred.items():
        named = {"kind": kind, "name": name.decode(errors="replace"), "sql": text.decode(errors="replace")}
        reporter.write({"deferred": named})
    for extension, schema in sorted(loader.judge.extensions.items()):
        said = {"extension": extension.decode(errors="replace"), "schema": schema.decode(errors="replace")}
        reporter.write(said)
    facts = loader.splitter.facts
    reporter.write(
        {
            "done": {
                "statements": outcome.statements,
                "tables": outcome.tables,
                "large_objects": outcome.large_objects,
                "rows": loader.rows,
            },
            "text_bytes": loader.splitter.size_bytes,
            "made": outcome.made,
            "left_out": {what: number for what, number in outcome.left_out.items() if what},
            "source_version": facts.source_version,
            "dumper_version": facts.dumper_version,
        }
    )


if __name__ == "__main__":
    main()
