"""An upload loaded into a new schema, by an account that may do nothing elsewhere and is dropped afterwards.

The text goes through two jails: one decides about each statement (`filter_child`), the other is the client program,
without local files, client commands, or the right to start anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import secrets
import string
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import NoReturn

from agent.engines.mariadb import names
from agent.engines.mariadb.dumps import foreign
from agent.engines.mariadb.dumps.exact_rows import ROWS_OF, rows_of
from agent.engines.mariadb.dumps.foreign import DUMP_AGAIN
from agent.engines.mariadb.dumps.made_names import TABLES, TRIGGERS, VIEWS
from agent.engines.mariadb.server import added_keys, foreign_keys, programs
from agent.engines.mariadb.server.catalog import Schema
from agent.engines.mariadb.server.client import (
    ANSWER_SECONDS,
    CHANGED,
    WITHIN_SECONDS,
    error_of_change,
    error_of_load,
    literal,
    query,
    quoted,
)
from agent.engines.mariadb.server.kept_clients import keeping_clients
from agent.engines.mariadb.server.sessions import SETTINGS
from agent.engines.mariadb.server.settings import Login
from agent.jail import PARSER, Jail
from agent.limits import Limits
from agent.processes import Child, Command, feed, start
from agent.unpacking import RATIO_COUNTS_FROM_BYTES, Content, peeked, unpacked
from common.errors import (
    AppBusyError,
    AppUnavailableError,
    ArchiveIncompatibleError,
    ArchiveWrongKindError,
    InternalError,
    LimitExceededError,
    ServiceError,
    ToolFailedError,
    make_error,
)
from common.headers import ArchiveHeader
from common.kinds import HEAD_BYTES

_REMARK = re.compile(r"(?:Note|Warning) \(Code (\d+)\): (.*)")
_FILTER = Jail(address_space_bytes=2 << 30)
_STATEMENT_SECONDS = 3600
"""Most time for one statement of an upload: a large index takes long, but one that only waits ends some day."""
_IDLE_SECONDS = 31_536_000
"""How long the server waits for more of an upload: the most that it takes. Of uploads that stall, others decide."""
LOCK_SECONDS = 30
"""Most time that a drop waits for a session that is still at work."""
_LOOK_SECONDS = 0.1
_PASSWORD_KINDS = (string.ascii_lowercase, string.ascii_uppercase, string.digits, "-_+.,:")
_FILES = "/*M! INNODB_SYS_TABLESPACES */ /*!80000 INNODB_TABLESPACES */"
_SIZE_SECONDS = 5.0
"""How often the new schema's size is asked for."""


@dataclass(frozen=True)
class Loaded:
    """What an upload turned out to be.

    Attributes:
        made: how many tables, views and triggers are there at least when all of it was carried out.
        events: how many it has; the server does not make those whose time has passed.
        has_history: it holds the earlier rows of system-versioned tables.
        server: version of the server that it comes from, as the dump says it; empty: it says none.
        modes_left_out: what of an sql_mode the server does not have and goes by anyway.
        words_left_out: what of its tables is written for other servers alone, as they say that in comments.
    """

    made: Mapping[str, int]
    events: int
    has_history: bool
    server: str
    header: ArchiveHeader | None
    modes_left_out: str = ""
    words_left_out: str = ""


async def make_beside(admin: Login, schema: Schema, key: str) -> Login:
    """Make the new schema and the account that fills it; what is there of an earlier try is dropped first.

    Raises:
        AppUnavailableError: the server would make tables otherwise than a file says.
    """
    if schema.adds_keys and (obstacle := await added_keys.obstacle(admin)):
        raise AppUnavailableError(obstacle, next_step=added_keys.NEXT_STEP)
    new, user, password = names.new_schema(key), names.loader(key), _password()
    grantable = await _grantable(admin, new)
    made = (
        f"CREATE DATABASE {quoted(new)} CHARACTER SET {schema.charset} COLLATE {schema.collation};"
        f"CREATE USER {literal(user)}@'%' IDENTIFIED BY {literal(password)};"
        f"GRANT ALL PRIVILEGES ON {grantable}.* TO {literal(user)}@'%';"
        # What is in them, no query tells.
        f"REVOKE CREATE TEMPORARY TABLES ON {grantable}.* FROM {literal(user)}@'%';"
    )
    if schema.adds_keys:
        made += f"GRANT {added_keys.RIGHT} ON *.* TO {literal(user)}@'%';"
    try:
        await query(admin, made)
    except ToolFailedError:
        # There is an earlier try. Whatever else it is, it fails again.
        await drop_beside(admin, key)
        await query(admin, made)
    return replace(admin, user=user, password=password)


def _password() -> str:
    """One that satisfies what servers may ask of any: 8 characters of each kind, and more than 100 bits unknown."""
    return "".join(secrets.choice(kind) for kind in _PASSWORD_KINDS for _ in range(8))


async def drop_beside(admin: Login, key: str) -> None:
    """Drop the new schema and its account; what is not there is fine."""
    await drop_loader(admin, key)
    await query(
        admin,
        f"SET SESSION lock_wait_timeout = {LOCK_SECONDS}; DROP DATABASE IF EXISTS {quoted(names.new_schema(key))};",
    )


async def drop_loader(admin: Login, key: str) -> None:
    """End the account that loaded, its sessions, and what is its own where that has to go first: MySQL drops no account
    that has views, triggers, routines or events. What is not there is fine.

    A session whose client is gone goes on with its statement. The admin may not end those of another account, each
    account may end its own; so the admin makes itself that account, with a new password, whoever had the last.

    Raises:
        AppBusyError: a session does not end.
    """
    user, password = literal(names.loader(key)), _password()
    changed = f"ALTER USER {user}@'%' IDENTIFIED BY {literal(password)};"
    try:
        await query(admin, f"CREATE USER IF NOT EXISTS {user}@'%' IDENTIFIED BY {literal(password)}; {changed}")
    except ToolFailedError:
        # MySQL does not even look whether an account is there to which something belongs.
        await query(admin, changed)
    loader = replace(admin, user=names.loader(key), password=password)
    await _end_sessions(loader)
    dropping = f"DROP USER IF EXISTS {user}@'%';"
    try:
        await query(admin, dropping)
    except ToolFailedError:
        staged = names.new_schema(key)
        async with keeping_clients(are_own=True):
            if not (left := await programs.list_all(loader, staged)):
                raise
            await programs.drop(loader, staged, {found.key for found in left})
        await query(admin, dropping)


@keeping_clients(are_own=True)
async def _end_sessions(loader: Login) -> None:
    """All of an account but the one that asks; they may take a while, to take back what they did."""
    others = (
        "SELECT ID FROM information_schema.PROCESSLIST"  # noqa: S608  # a name of ours
        f" WHERE ID <> CONNECTION_ID() AND USER = {literal(loader.user)};"
    )
    try:
        async with asyncio.timeout(LOCK_SECONDS):
            while sessions := await query(loader, others):
                for (session,) in sessions:
                    with contextlib.suppress(ToolFailedError):
                        # It may have ended by itself.
                        await query(loader, f"KILL {int(session)};")
                await asyncio.sleep(_LOOK_SECONDS)
    except TimeoutError:
        raise AppBusyError(
            "The server is still at work on a statement of the file that was loaded.",
            next_step="Try again in a while.",
        ) from None


async def load(
    admin: Login,
    loader: Login,
    upload: AsyncIterator[bytes],
    *,
    key: str,
    limits: Limits,
    takes_programs: bool = False,
) -> Loaded:
    """Carry out what of an upload may be carried out.

    Args:
        admin: sees how large the server's files are.
        loader: as `make_beside` gave it.
        takes_programs: whether views, triggers, routines and events are taken, or refused.
    Raises:
        ArchiveError: the file's fault, by class.
        AppUnavailableError, NoSpaceError: the server's.
        Whatever the upload raises.
    """
    async with unpacked(upload, limits=limits) as content:
        head, chunks = await peeked(content.chunks, head_bytes=HEAD_BYTES)
        if kind := foreign.what_it_is(head):
            raise ArchiveWrongKindError(f"The file is no dump of MariaDB or MySQL; it is {kind}.", next_step=DUMP_AGAIN)
        [[most_bytes, adds_keys, folds_case, version], *verbosity] = await query(
            loader,
            "SELECT @@max_allowed_packet, 0 /*!80030 + @@sql_generate_invisible_primary_key */,"
            " @@lower_case_table_names <> 0, VERSION(); SHOW VARIABLES LIKE 'note_verbosity';",
        )
        options = [most_bytes, folds_case, version, *([names.new_schema(key)] if takes_programs else [])]
        waiting = f"lock_wait_timeout = {_STATEMENT_SECONDS}, wait_timeout = {_IDLE_SECONDS}"
        # The server's own may leave out what it would note.
        noting = ", note_verbosity = 'basic'" if verbosity else ""
        keys = f", {added_keys.NOT_ADDED}" if adds_keys == "1" else ""
        argv = [
            str(loader.client),
            *loader.options(),
            f"--connect-timeout={ANSWER_SECONDS}",
            "--batch",
            "--skip-column-names",
            "--show-warnings",
            "--binary-mode",
            # Those in routines, which clients of MySQL leave out by default.
            "--comments",
            "--local-infile=0",
            "--max-allowed-packet=1G",
            f"--init-command={SETTINGS}, {waiting}{noting}{keys}",
            f"--database={names.new_schema(key)}",
        ]
        async with (
            aclosing(chunks),
            start(
                Command(["agent.engines.mariadb.dumps.filter_child", *options], jail=_FILTER, is_module=True)
            ) as judge,
            start(Command(argv, jail=PARSER, environment=loader.environment())) as client,
        ):
            await client.write(f"{WITHIN_SECONDS.format(seconds=_STATEMENT_SECONDS)}\n".encode())
            bound = asyncio.create_task(_bound_growth(admin, names.new_schema(key), content, limits), name="bound")
            loading = asyncio.create_task(_pass_through(chunks, judge, client, loader), name="load a dump")
            try:
                await asyncio.wait({bound, loading}, return_when=asyncio.FIRST_COMPLETED)
                loaded = await (bound if bound.done() else loading)
            finally:
                for task in (bound, loading):
                    task.cancel()
                await asyncio.gather(bound, loading, return_exceptions=True)
        async with keeping_clients(are_own=True):
            await _require_all(loader, names.new_schema(key), loaded.made)
            await foreign_keys.require_parents(loader, names.new_schema(key))
        return loaded


async def _require_all(loader: Login, schema: str, made: Mapping[str, int]) -> None:
    """Raise ArchiveIncompatibleError where the server has less than was made in it."""
    name = literal(schema)
    rows = await query(
        loader,
        f"SELECT '{TABLES}', COUNT(*) FROM information_schema.TABLES"  # noqa: S608  # a literal
        f" WHERE TABLE_SCHEMA = {name} AND TABLE_TYPE NOT LIKE '%VIEW';"
        f" SELECT '{VIEWS}', COUNT(*) FROM information_schema.VIEWS WHERE TABLE_SCHEMA = {name};"
        f" SELECT '{TRIGGERS}', COUNT(*) FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = {name};",
    )
    for kind, count in rows:
        if int(count) < made[kind]:
            raise ArchiveIncompatibleError(
                f"The file makes {made[kind]} {kind}, and the server has {count} of them when all of it is loaded: it "
                "takes names for one that differ in the file.",
                next_step="Give them other names at their source, then dump again.",
            )


@keeping_clients()
async def _bound_growth(admin: Login, schema: str, content: Content, limits: Limits) -> NoReturn:
    """Raise LimitExceededError once the new schema grows out of proportion: short rows with long defaults do that."""
    # The files first: what one statement makes, the other question waits for, and FULLTEXT keys are in files alone.
    sizes = (
        f"SELECT COALESCE(SUM(FILE_SIZE), 0) FROM information_schema.{_FILES} WHERE NAME LIKE '{schema}/%';",  # noqa: S608
        f"{WITHIN_SECONDS.format(seconds=int(_SIZE_SECONDS))}"  # noqa: S608  # a literal
        " SELECT COALESCE(SUM(DATA_LENGTH + INDEX_LENGTH), 0) FROM information_schema.TABLES"
        f" WHERE TABLE_SCHEMA = {literal(schema)};",
    )
    while True:
        await asyncio.sleep(_SIZE_SECONDS)
        for size in sizes:
            try:
                [[grown]] = await query(admin, size)
            except ServiceError:
                # Whatever it is, the load meets it too and says it better.
                continue
            if int(grown) > RATIO_COUNTS_FROM_BYTES and int(grown) > content.received_bytes * limits.expansion_ratio:
                raise LimitExceededError(
                    f"What the file makes in the database is more than {limits.expansion_ratio} times its size.",
                    next_step="If the file is right, raise `expansion_ratio` in the agent's [limits].",
                )


async def _pass_through(chunks: AsyncIterator[bytes], judge: Child, client: Child, loader: Login) -> Loaded:
    output = _Output()
    feeding = asyncio.create_task(_feed_whole(judge, chunks), name="feed a dump to its judge")
    draining = asyncio.create_task(output.read(client), name="read the client's output")
    try:
        if not await _forward(judge, client):
            # A statement failed; what comes after it does not matter.
            await draining
            await _check(client, loader, output)
            raise ToolFailedError("The client program ended before it had read all of the dump.")
        # First what the upload itself says: when it was cut, that the judge met a cut text is no news.
        await feeding
        report = await _report(judge)
        if reason := report.get("reason"):
            client.abort_stdin()
            raise make_error(str(reason), str(report["text"]), next_step=str(report["next_step"]))
        await client.close_stdin()
        await draining
        await _check(client, loader, output)
    finally:
        for task in (feeding, draining):
            task.cancel()
        await asyncio.gather(feeding, draining, return_exceptions=True)
    header = str(report.get("header", ""))
    return Loaded(
        {kind: int(report[kind]) for kind in (TABLES, VIEWS, TRIGGERS)},
        int(report["events"]),
        bool(report["has_history"]),
        str(report.get("server", "")),
        ArchiveHeader.from_json(header.encode()) if header else None,
        str(report.get("modes_left_out", "")),
        str(report.get("words_left_out", "")),
    )


async def _forward(judge: Child, client: Child) -> bool:
    """Statements from one to the other; False when the client stopped reading, because one failed."""
    try:
        async for piece in judge.chunks():
            await client.write(piece)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


async def _check(client: Child, loader: Login, output: _Output) -> None:
    if output.changed:
        raise output.changed
    try:
        await client.check()
    except ToolFailedError as failure:
        raise error_of_load(failure.text, loader, output.rows) from failure


class _Output:
    """What the client says while it loads: which rows come next, and what the server remarks on them.

    Attributes:
        rows: for a person, the last that were told.
        changed: the first remark on a value that is now another.
    """

    def __init__(self) -> None:
        self.rows = ""
        self.changed: ServiceError | None = None
        self._are_warnings_of_values = False

    async def read(self, client: Child) -> None:
        """All of it."""
        rest = b""
        async for piece in client.chunks():
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                self._add(line.decode(errors="replace"))

    def _add(self, line: str) -> None:
        if line.startswith(f"{ROWS_OF}\t"):
            _, number, judged, table = line.split("\t", 3)
            self.rows = rows_of(number, table) if table else ""
            self._are_warnings_of_values = judged == "1"
        elif (found := _REMARK.match(line)) and self._are_warnings_of_values and int(found[1]) in CHANGED:
            self.changed = self.changed or error_of_change(int(found[1]), found[2].rstrip("."), self.rows)


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


async def _grantable(admin: Login, schema: str) -> str:
    """In a grant, `_` in a name stands for any character, but where MySQL lets rights be taken back in parts."""
    [[is_literal]] = await query(admin, "SELECT 0 /*!80016 + @@partial_revokes */;")
    return quoted(schema if is_literal == "1" else schema.replace("_", "\\_"))
