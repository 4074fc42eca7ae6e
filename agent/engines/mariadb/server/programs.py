"""Views, triggers, routines and events of a schema: read, dropped, and made again word for word.

The server does not move them between schemas, so they travel as text: what SHOW CREATE says, with the settings that
they were made under. The one fact to know: all of it is done by the account that they belong to, so whatever a
definition says, it is made and runs with that account's rights. So the text is kept without its definer.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from graphlib import CycleError, TopologicalSorter

import msgspec

from agent.engines.mariadb.dumps import client_reads, definitions, one_statement
from agent.engines.mariadb.dumps.view_reads import moved, tables_read
from agent.engines.mariadb.names import called, table_of, within
from agent.engines.mariadb.server import charsets
from agent.engines.mariadb.server.client import WITHIN_SECONDS, literal, of_schema, query, quoted
from agent.engines.mariadb.server.kept_clients import keeping_clients
from agent.engines.mariadb.server.settings import Login
from common.errors import ArchiveIncompatibleError, ToolFailedError

MAX_BYTES = 8 << 20
"""Most text of all definitions of a schema; they are written into the import's journal."""
KINDS = ("function", "procedure", "view", "trigger", "event")
"""In the order in which they are made."""
LOGGED_KINDS = frozenset({"function", "trigger"})
"""Which a server that writes a binary log takes from superusers alone, unless it is told otherwise."""
_ROUTINES = frozenset({"function", "procedure"})
_NAME = r"`(?:[^`]|``)*`"
_DEFINER = re.compile(rf"(?P<create>CREATE (?:ALGORITHM=\w+ )?)DEFINER={_NAME}(?:@{_NAME})? ")
_ANY_NAME = rf'(?:{_NAME}|"(?:[^"]|"")*")'
_ANY_DEFINER = re.compile(
    rf"(?P<create>CREATE (?:OR REPLACE )?(?:ALGORITHM=\w+ )?)DEFINER={_ANY_NAME}(?:@{_ANY_NAME})? "
)
_EVENT = re.compile(
    rf"(?P<begin>CREATE EVENT {_ANY_NAME} ON SCHEDULE (?P<schedule>.*?) ON COMPLETION )"
    r"(?P<completion>(?:NOT )?PRESERVE )(?:ENABLE|DISABLE ON (?:SLAVE|REPLICA)|DISABLE)\b"
)
_LAST_TIME = re.compile(r"(?:^AT|\bENDS) ('[\d:. -]+')$")
_ESCAPED = re.compile(r"[\\\x00-\x1f\x7f]")
_MARK = "mathison"
STATEMENT_SECONDS = 60
"""Most time for one statement that drops or makes something, which waits for no lock as long. On a full disk a server
whose system tables are Aria's waits for room for ever (DROP PROCEDURE of 10.11)."""


class Program(msgspec.Struct, frozen=True):
    """One of them.

    Attributes:
        kind: one of KINDS.
        text: the statement that makes it, for its own schema as the current one, without a definer; bytes that are no
            text of its character set are surrogates.
        time_zone: of an event's schedule.
        is_mysql: it was read from MySQL, and is made there.
    """

    kind: str
    name: str
    text: str
    charset: str
    collation: str
    sql_mode: str = ""
    time_zone: str = ""
    is_mysql: bool = False

    @property
    def key(self) -> tuple[str, str]:
        return self.kind, self.name

    @property
    def table(self) -> str | None:
        """On which a trigger is; None: it is none, or its text does not tell."""
        return table_of(self.text) if self.kind == "trigger" else None

    def standing_in(self, name: str, table: str) -> Program:
        """A trigger with a name of its own that does the same on another table."""
        return msgspec.structs.replace(self, name=name, text=called(self.text, name, table=table))

    def statements(self, *, is_there: bool = False) -> str:
        """What makes it, or replaces one that is there; the session's settings are others afterwards."""
        zone = f", time_zone = {literal(self.time_zone)}" if self.time_zone else ""
        text = self.text.replace("CREATE ", "CREATE OR REPLACE ", 1) if is_there else self.text
        encoded = charsets.bytes_of(text, self.charset)
        if self.is_mysql:
            is_view = self.kind == "view"
            made = one_statement.at_mysql(encoded, is_view=is_view, is_known=True, sql_mode=self.sql_mode)
        else:
            made = one_statement.at_mariadb(encoded)
        return (
            f"SET sql_mode = {literal(self.sql_mode)}, character_set_client = {self.charset},"
            f" collation_connection = {self.collation}{zone};\n{made.decode(errors='surrogateescape')};\n"
        )


class Listed(msgspec.Struct, frozen=True):
    """What the catalogs say of one.

    Attributes:
        kind: one of KINDS, or "package", "package body".
        about: a trigger's table, an event's status.
        beside: the comment, and what a function returns.
    """

    kind: str
    name: str
    definer: str
    about: str
    beside: str

    @property
    def key(self) -> tuple[str, str]:
        return self.kind, self.name


class Shown(msgspec.Struct, frozen=True):
    """One as the server says it, see `charsets.text_of`; what it says nothing of is empty."""

    listed: Listed
    text: str
    charset: str
    collation: str
    sql_mode: str = ""
    time_zone: str = ""
    is_mysql: bool = False

    @property
    def without_definer(self) -> str:
        """The text, of whatever sql_mode."""
        found = _ANY_DEFINER.match(self.text)
        return found["create"] + self.text[found.end() :] if found else self.text

    @property
    def is_said_otherwise(self) -> bool:
        """Whether its comment is not as it is told: servers write escapes in it, under whichever sql_mode."""
        return (
            "NO_BACKSLASH_ESCAPES" in self.sql_mode
            and self.listed.kind in ("function", "procedure", "event")
            and _ESCAPED.search(self.listed.beside) is not None
        )

    @property
    def is_mixed(self) -> bool:
        """Whether some characters in it are not those that it was made of: where its character set is not UTF-8,
        servers say comments, what a function returns, and names of events in UTF-8 all the same, MySQL more names."""
        listed = self.listed
        if charsets.is_utf8(self.charset) or listed.kind == "view":
            return False
        in_utf8 = listed.beside
        if self.is_mysql or listed.kind == "event":
            in_utf8 += listed.name
        if self.is_mysql and listed.kind == "trigger":
            in_utf8 += listed.about
        return not in_utf8.isascii()


async def list_all(login: Login, database: str) -> list[Listed]:
    """All that an account may see, by name; triggers in the order in which they fire."""
    name = literal(database)
    rows = await query(
        login,
        f"""
        SELECT LOWER(ROUTINE_TYPE), ROUTINE_NAME, DEFINER, '', CONCAT(ROUTINE_COMMENT, COALESCE(DTD_IDENTIFIER, ''))
          FROM information_schema.ROUTINES
         WHERE {of_schema("ROUTINE_SCHEMA", database)} ORDER BY ROUTINE_TYPE, ROUTINE_NAME;
        SELECT 'view', TABLE_NAME, DEFINER, '', '' FROM information_schema.VIEWS WHERE TABLE_SCHEMA = {name}
         ORDER BY TABLE_NAME;
        SELECT 'trigger', TRIGGER_NAME, DEFINER, EVENT_OBJECT_TABLE, '' FROM information_schema.TRIGGERS
         WHERE TRIGGER_SCHEMA = {name}
         ORDER BY EVENT_OBJECT_TABLE, ACTION_TIMING, EVENT_MANIPULATION, ACTION_ORDER;
        SELECT 'event', EVENT_NAME, DEFINER, STATUS, EVENT_COMMENT FROM information_schema.EVENTS
         WHERE {of_schema("EVENT_SCHEMA", database)}
         ORDER BY EVENT_NAME;
        """,  # noqa: S608  # a literal
    )
    return [Listed(*row) for row in rows]


async def read(login: Login, database: str, *, staged: bool = False) -> list[Program]:
    """All of them, by the account that they belong to, in an order in which they can be made.

    Args:
        staged: they were made by `definitions`, so the status of an event has to be told from what it became there.
    Raises:
        ToolFailedError: one cannot be read, or they are more than can be kept; the text names what.
    """
    shown = await show(login, database)
    programs = [_program(found, staged=staged) for found in shown if found.listed.kind in KINDS]
    if sum(len(program.text) for program in programs) > MAX_BYTES:
        raise ToolFailedError(
            f"The definitions of views, triggers, routines and events are above {MAX_BYTES >> 20} MiB."
        )
    return ordered(programs)


async def show(login: Login, database: str) -> list[Shown]:
    """What the server says of all that an account may see.

    Raises:
        ToolFailedError: it may see one without being told how it is made.
    """
    listed = await list_all(login, database)
    batch = "".join(
        f"SELECT {literal(_MARK)}, {number}; SHOW CREATE {found.kind.upper()} {quoted(found.name)};"
        for number, found in enumerate(listed)
    )
    if not batch:
        return []
    shown: list[Shown] = []
    current: Listed | None = None
    [version], *rows = await query(login, f"SELECT VERSION(); {charsets.AS_KEPT} {batch}", database=database)
    for row in rows:
        if current is None:
            current = listed[int(row[1])]
        else:
            shown.append(_shown(current, row, database, is_mysql="mariadb" not in version.lower()))
            current = None
    return shown


async def refused_by_imports(login: Login, database: str, *, has_libraries: bool) -> list[str]:
    """Sentences about what a dump of a database holds and no import into a server as this one takes.

    Args:
        has_libraries: the server knows such, which MySQL's dumps hold with routines.
    """
    refused = []
    try:
        for shown in await show(login, database):
            what = f"The {shown.listed.kind} {shown.listed.name}"
            try:
                if shown.listed.kind in KINDS:
                    _program(shown, staged=False)
                if definitions.made_by(shown.text.encode(errors="surrogateescape")) is None:
                    refused.append(f"{what} is of a kind that is not supported.")
            except ToolFailedError as failure:
                refused.append(failure.text)
    except ToolFailedError as failure:
        refused.append(failure.text)
    if has_libraries:
        rows = await query(
            login,
            "SELECT LIBRARY_NAME FROM information_schema.LIBRARIES"  # noqa: S608  # a literal
            f" WHERE {of_schema('LIBRARY_SCHEMA', database)} ORDER BY LIBRARY_NAME;",
        )
        refused += [f"The library {name} is of a kind that is not supported." for [name] in rows]
    return refused


@keeping_clients(are_own=True)
async def take_out(loader: Login, staged: str, *, put_into: str) -> list[Program]:
    """What a dump brought along: read, taken out of the schema that it was loaded into, and meant for another.

    Raises:
        ArchiveIncompatibleError: it holds what could not be made again; the text names it.
    """
    try:
        if broken := await broken_view(loader, staged, await list_all(loader, staged)):
            raise ToolFailedError(broken)
        found = [_put_into(put_into, program, staged) for program in await read(loader, staged, staged=True)]
    except ToolFailedError as failure:
        raise ArchiveIncompatibleError(
            f"The file holds what cannot be made again: {failure.text}",
            next_step="Drop or correct it at its source, then dump again.",
        ) from failure
    await drop(loader, staged, {program.key for program in found})
    return found


def _put_into(schema: str, program: Program, staged: str) -> Program:
    if program.kind != "view":
        return program
    text = moved(program.text, staged, schema)
    # The character set may lack what is in the schema's name.
    charsets.bytes_of(text, program.charset)
    return msgspec.structs.replace(program, text=text)


def _shown(listed: Listed, row: Sequence[str], database: str, *, is_mysql: bool) -> Shown:
    match listed.kind:
        case "view":
            _, text, charset, collation = row[:4]
            mode = zone = ""
        case "event":
            _, mode, zone, text, charset, collation = row[:6]
        case _:
            _, mode, text, charset, collation = row[:5]
            zone = ""
    if text == "NULL":
        raise ToolFailedError(
            f"How the {listed.kind} {listed.name} is made is not told to the app's account; it belongs to "
            f"{listed.definer}."
        )
    text = charsets.text_of(text.encode(errors="surrogateescape"), charset)
    if listed.kind == "trigger":
        text = within(text, database)
    return Shown(listed, text, charset, collation, mode, zone, is_mysql)


def _program(shown: Shown, *, staged: bool) -> Program:
    listed, text = shown.listed, shown.text
    what = f"The {listed.kind} {listed.name}"
    if "ANSI_QUOTES" in shown.sql_mode:
        raise ToolFailedError(
            f"{what} was made under the sql_mode ANSI_QUOTES, in which names are written as strings are elsewhere; "
            "make it again under another."
        )
    if shown.charset not in charsets.KNOWN or shown.is_mixed:
        why = ", in which the server does not say all of it" if shown.charset in charsets.KNOWN else ""
        raise ToolFailedError(
            f"{what} was made under the character set {shown.charset}{why}; make it again after SET NAMES utf8mb4."
        )
    if shown.is_said_otherwise:
        raise ToolFailedError(
            f"{what} was made under the sql_mode NO_BACKSLASH_ESCAPES, in which the server does not say its comment as "
            "it is; make it again without backslashes and ends of lines in its comment, or under another."
        )
    found = _DEFINER.match(text)
    if found is None:
        raise ToolFailedError(f"{what} is in words that no server writes.")
    text = found["create"] + text[found.end() :]
    if listed.kind == "event" and staged:
        text = with_status(text, is_enabled=listed.about == "DISABLED")
    if shown.is_mysql and listed.kind != "view":
        try:
            # As it will be when it has been made again, so that it is known for the same.
            arriving = client_reads.require_as_it_is(charsets.bytes_of(text, shown.charset), shown.sql_mode)
            text = charsets.text_of(arriving, shown.charset)
        except client_reads.ReadOtherwiseError as odd:
            raise ToolFailedError(f"{what} {odd}.") from None
    return Program(
        listed.kind, listed.name, text, shown.charset, shown.collation, shown.sql_mode, shown.time_zone, shown.is_mysql
    )


def with_status(event: str, *, is_enabled: bool) -> str:
    """The text of an event, as of one that is enabled or disabled."""
    found = _EVENT.match(event)
    if found is None:
        return event
    return found["begin"] + found["completion"] + ("ENABLE" if is_enabled else "DISABLE") + event[found.end() :]


def kept_when_over(event: Program) -> Program:
    """An event whose last time is in the past, in words in which the server keeps it: disabled, and it stays."""
    found = _EVENT.match(event.text)
    text = found["begin"] + "PRESERVE DISABLE" + event.text[found.end() :] if found else event.text
    return msgspec.structs.replace(event, text=text)


async def is_over(login: Login, event: Program, there: Program | None) -> bool:
    """Whether one differs from what is there only because its last time is in the past: the server drops such an event,
    or never makes it, or disables it."""
    found = _EVENT.match(event.text) if event.kind == "event" else None
    last = _LAST_TIME.search(found["schedule"]) if found else None
    disabled = msgspec.structs.replace(event, text=with_status(event.text, is_enabled=False))
    if last is None or there not in (None, disabled, kept_when_over(event)):
        return False
    # The zone is one that the server itself told.
    rows = await query(login, f"SET time_zone = {literal(event.time_zone)}; SELECT {last[1]} <= NOW();", is_apart=True)
    return rows[0][0] == "1"


def ordered(programs: Iterable[Program]) -> list[Program]:
    """So that each comes after those that it needs when it is made: only views need others."""
    by_kind = {kind: [program for program in programs if program.kind == kind] for kind in KINDS}
    views = {program.name: program for program in by_kind["view"]}
    needs = {}
    for name, program in views.items():
        read = tables_read(program.text)
        needs[name] = [other for other in views if other != name and quoted(other) in read]
    try:
        by_kind["view"] = [views[name] for name in TopologicalSorter(needs).static_order()]
    except CycleError as cycle:
        raise ToolFailedError(f"The views {', '.join(sorted(set(cycle.args[1])))} name each other.") from cycle
    return [program for kind in KINDS for program in by_kind[kind]]


async def make(
    login: Login,
    database: str,
    programs: Sequence[Program],
    *,
    dropping: Collection[tuple[str, str]],
    locking: Collection[str] = (),
) -> None:
    """Drop some, then make some, for the account of the login. Routines that are in both are replaced, which leaves the
    grants on them, where the server can.

    Args:
        locking: tables that nobody may use while triggers are dropped and made; all that have any of these.
    """
    replaced = {one.key for one in programs if one.kind in _ROUTINES and not one.is_mysql} & set(dropping)
    made = dict.fromkeys(KINDS, "")
    for program in programs:
        made[program.kind] += program.statements(is_there=program.key in replaced)
    dropped = {key for key in dropping if key[0] == "trigger"}
    triggers = drops(dropped) + made.pop("trigger")
    if triggers and locking:
        locks = ", ".join(f"{quoted(table)} WRITE" for table in sorted(locking))
        triggers = f"LOCK TABLES {locks}; {triggers} UNLOCK TABLES;"
    events = made.pop("event")
    if sql := drops(set(dropping) - replaced - dropped) + "".join(made.values()) + triggers + events:
        await query(login, _in_time(sql), database=database, is_apart=True)


async def drop(login: Login, database: str, keys: Collection[tuple[str, str]]) -> None:
    """Drop those; what is not there is fine."""
    if keys:
        await query(login, _in_time(drops(keys)), database=database)


def _in_time(sql: str) -> str:
    return WITHIN_SECONDS.format(seconds=STATEMENT_SECONDS) + sql


def drops(keys: Collection[tuple[str, str]]) -> str:
    """The statements that do."""
    return "".join(f"DROP {kind.upper()} IF EXISTS {quoted(name)};" for kind, name in sorted(keys))


async def broken_view(login: Login, database: str, listed: Iterable[Listed]) -> str:
    """A sentence about a view that does not work, so could not be made again; empty when all do."""
    views = [quoted(found.name) for found in listed if found.kind == "view"]
    if not views:
        return ""
    rows = await query(login, f"CHECK TABLE {', '.join(views)};", database=database)
    wrong = next((row for row in rows if row[2] == "Error"), None)
    return f"The view {wrong[0].partition('.')[2]} does not work: {wrong[3]}." if wrong else ""
