"""What runs where and in which order, seen by sessions that only note it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agent.engines.pg.loading.loader import Loader
from agent.engines.pg.loading.sessions import Session, Settings, SqlFailure
from agent.engines.pg.loading.sqltext import Splitter, Statement
from agent.engines.pg.loading.statements import Judge, There
from agent.engines.pg.server.text_errors import TextError

CLOSING = b"\n--\n-- PostgreSQL database dump complete\n--\n"


class NotingSession(Session):
    """Executes nothing.

    Attributes:
        log: (session's number, what it did), of all sessions of a test.
        failures: SQLSTATEs to fail with once, by statement.
    """

    def __init__(self, number: int, log: list[tuple[int, str]], failures: dict[bytes, str]) -> None:
        self.rows = 0
        self.number = number
        self.log = log
        self.failures = failures
        self.in_transaction = False
        self._known_settings = 0

    @property
    def is_idle(self) -> bool:
        return not self.in_transaction

    @property
    def has_standard_strings(self) -> bool:
        return True

    async def run(self, text: bytes, line: int) -> None:
        await asyncio.sleep(0)
        self.log.append((self.number, text.decode()))
        if text in (b"BEGIN", b"COMMIT"):
            self.in_transaction = text == b"BEGIN"
        if sqlstate := self.failures.pop(text, ""):
            raise SqlFailure(line, sqlstate, "failed", head=text)

    async def names(self, query: bytes, line: int) -> list[bytes]:
        return [b"public.t", b'public."U"']

    async def insert(self, statements: Sequence[Statement], *, has_standard_strings: bool) -> None:
        for statement in statements:
            await self.run(statement.text, statement.line)

    @asynccontextmanager
    async def copy(self, text: bytes, line: int) -> AsyncIterator[Any]:
        copied = Copied()
        yield copied
        await self.run(text + b": " + b"".join(copied.parts), line)


class Copied:
    def __init__(self) -> None:
        self.parts: list[bytes] = []

    async def write(self, rows: bytes) -> None:
        await asyncio.sleep(0)
        self.parts.append(rows)


def entry(kind: str, name: str = "x") -> bytes:
    return f"\n--\n-- Name: {name}; Type: {kind}; Schema: public; Owner: -\n--\n\n".encode()


class Run:
    """One text loaded by three noting sessions."""

    def __init__(self, **failures: str) -> None:
        self.log: list[tuple[int, str]] = []
        self.notes: list[str] = []
        by_statement = {name.replace("_", " ").encode(): sqlstate for name, sqlstate in failures.items()}
        self.sessions = [NotingSession(number, self.log, by_statement) for number in range(3)]
        self.loader = Loader(
            self.sessions,
            judge=Judge(There(), server_version_num=170010),
            splitter=Splitter(),
            on_note=self.notes.append,
        )

    async def load(self, text: bytes, piece_bytes: int = 1 << 20) -> Run:
        async def chunks() -> AsyncIterator[bytes]:
            whole = text + CLOSING
            for start in range(0, len(whole), piece_bytes):
                yield whole[start : start + piece_bytes]

        await self.loader.load(chunks())
        return self

    @property
    def statements(self) -> list[str]:
        return [statement for _, statement in self.log]

    def sessions_of(self, part: str) -> set[int]:
        return {number for number, statement in self.log if part in statement}


async def test_statements_run_in_order_in_the_first_session() -> None:
    run = await Run().load(b"SELECT 1; SET a = 1; INSERT INTO t VALUES (1); SELECT 2;")

    assert run.log == [(0, "SELECT 1"), (0, "SET a = 1"), (0, "INSERT INTO t VALUES (1)"), (0, "SELECT 2")]


async def test_settings_are_repeated_where_they_are_needed_and_once() -> None:
    run = await Run().load(
        b"SET a = 1; SET b = 1; SET a = 2; SET b = 1;"
        + entry("INDEX")
        + b"CREATE INDEX i;"
        + entry("INDEX")
        + b"SET a = 3;"
        + entry("INDEX", "y")
        + b"CREATE INDEX j;"
    )

    for number in (1, 2):
        assert [one for session, one in run.log if session == number and one.startswith("SET")] == [
            "SET a = 1",
            "SET a = 2",
            "SET b = 1",
            "SET a = 3",
        ]


async def test_rows_of_tables_are_dealt_out_and_are_all_there_before_what_follows() -> None:
    rows = b"".join(b"%d\n" % n for n in range(300_000))
    text = b"CREATE TABLE t ();" + entry("TABLE DATA", "t") + b"COPY t FROM stdin;\n" + rows + b"\\.\n"
    text += entry("TABLE DATA", "u") + b"COPY u FROM stdin;\n1\n\\.\n" + entry("VIEW") + b"CREATE VIEW v;"

    run = await Run().load(text, 100_000)

    assert run.sessions_of("COPY t") == {0, 1, 2}
    copied = [one.partition(": ")[2] for one in run.statements if one.startswith("COPY t")]
    assert sorted("".join(copied).splitlines()) == sorted(rows.decode().splitlines())
    assert all(part.endswith("\n") for part in copied)
    assert run.log[-1] == (0, "CREATE VIEW v")
    assert run.notes == ["making tables and other objects", "loading rows", "making tables and other objects"]


async def test_a_long_row_stays_in_one_session() -> None:
    row = b"x" * (3 << 20) + b"\n"

    run = await Run().load(entry("TABLE DATA") + b"COPY t FROM stdin;\n1\n" + row + b"2\n" + row + b"3\n\\.\n", 200_000)

    copied = "".join(one.partition(": ")[2] for one in run.statements)
    assert sorted(copied.splitlines()) == sorted([*"123", "x" * (3 << 20), "x" * (3 << 20)])


@pytest.mark.parametrize(
    "before",
    [b"BEGIN;", entry("FK CONSTRAINT") + b"ALTER TABLE t;", entry("TRIGGER") + b"CREATE TRIGGER t;"],
    ids=["in a transaction", "behind foreign keys", "behind triggers"],
)
async def test_rows_keep_their_order_where_it_may_count(before: bytes) -> None:
    rows = b"".join(b"%d\n" % n for n in range(300_000))
    text = before + entry("TABLE DATA") + b"COPY t FROM stdin;\n" + rows + b"\\.\nINSERT INTO t VALUES (1);"

    run = await Run().load(text + (b"COMMIT;" if before == b"BEGIN;" else b""), 100_000)

    copied = [(number, one) for number, one in run.log if one.startswith("COPY")]
    assert copied == [(0, "COPY t FROM stdin: " + rows.decode())]
    assert run.sessions_of("INSERT") == {0}


async def test_empty_tables_are_copied_too() -> None:
    run = await Run().load(entry("TABLE DATA") + b"COPY t FROM stdin;\n\\.\n")

    assert run.statements == ["COPY t FROM stdin: "]


async def test_foreign_keys_wait_for_keys_and_indexes_and_comments_for_all() -> None:
    text = b""
    for kind in ("CONSTRAINT", "INDEX", "FK CONSTRAINT"):
        for n in range(6):
            text += entry(kind, f"{n}") + f"{kind} {n}; SECOND {kind} {n};".encode()
            text += entry("COMMENT", f"INDEX {n}") + f"COMMENT ON INDEX {kind[0]}{n} IS 'x';".encode()

    run = await Run().load(text)

    keys, comments, foreign_keys, more_comments = (
        run.statements[:24],
        run.statements[24:36],
        run.statements[36:48],
        run.statements[48:],
    )
    assert {one.removeprefix("SECOND ")[:-2] for one in keys} == {"CONSTRAINT", "INDEX"}
    assert {one.removeprefix("SECOND ")[:-2] for one in foreign_keys} == {"FK CONSTRAINT"}
    assert [one[:18] for one in comments] == ["COMMENT ON INDEX C"] * 6 + ["COMMENT ON INDEX I"] * 6
    assert [one[:18] for one in more_comments] == ["COMMENT ON INDEX F"] * 6
    for kind in ("CONSTRAINT", "INDEX", "FK CONSTRAINT"):
        for n in range(6):
            first, second = run.statements.index(f"{kind} {n}"), run.statements.index(f"SECOND {kind} {n}")
            assert run.log[first][0] == run.log[second][0]
            assert first < second
    assert run.sessions_of("CONSTRAINT") == {0, 1, 2}


async def test_a_deadlock_is_tried_again_when_nothing_else_runs() -> None:
    text = b"".join(entry("FK CONSTRAINT", f"{n}") + f"KEY {n}; MORE {n};".encode() for n in range(5))

    run = await Run(KEY_1="40P01", MORE_3="40P01").load(text + entry("VIEW") + b"AFTER;")

    assert run.statements[-4:] == ["KEY 1", "MORE 1", "MORE 3", "AFTER"]
    assert run.statements.count("KEY 3") == 1
    assert {number for number, _ in run.log[-4:]} == {0}


async def test_a_failure_in_another_session_ends_the_load_with_its_line() -> None:
    text = b"".join(entry("INDEX", f"{n}") + f"INDEX {n};".encode() for n in range(50))

    with pytest.raises(SqlFailure) as failed:
        await Run(INDEX_20="42P07").load(text)

    assert (text + CLOSING).split(b"\n")[failed.value.line - 1] == b"INDEX 20;"


async def test_what_is_not_there_need_not_be_removed() -> None:
    run = await Run(DROP_TABLE_a="42P01", DROP_FUNCTION_b="42883").load(b"DROP TABLE a; DROP FUNCTION b; SELECT 1;")

    assert run.statements == ["DROP TABLE a", "DROP FUNCTION b", "SELECT 1"]


async def test_what_cannot_be_removed_for_another_reason_is_an_error() -> None:
    with pytest.raises(SqlFailure):
        await Run(DROP_TABLE_a="2BP01").load(b"DROP TABLE a;")


async def test_what_is_left_out_is_counted_and_not_run() -> None:
    run = await Run().load(
        b"ALTER TABLE a OWNER TO b; GRANT a TO b; REVOKE a FROM b; CREATE PUBLICATION p FOR ALL TABLES;"
    )

    assert run.statements == []
    assert run.loader.outcome.left_out == {"owners": 1, "grants": 2}
    assert list(run.loader.outcome.deferred) == [("publication", b"p")]


async def test_forced_row_security_is_lifted_while_materialized_views_are_filled_and_no_longer() -> None:
    fill = entry("MATERIALIZED VIEW DATA")
    run = await Run().load(
        fill + b"REFRESH MATERIALIZED VIEW m;" + fill + b"REFRESH MATERIALIZED VIEW n;"
        b"SELECT 1;" + fill + b"REFRESH MATERIALIZED VIEW o;"
    )

    lifted = [f"ALTER TABLE ONLY {name} NO FORCE ROW LEVEL SECURITY" for name in ("public.t", 'public."U"')]
    put_back = [one.replace("NO ", "") for one in lifted]
    first = ["REFRESH MATERIALIZED VIEW m", "REFRESH MATERIALIZED VIEW n"]
    second = ["REFRESH MATERIALIZED VIEW o"]
    assert run.statements == [*lifted, *first, *put_back, "SELECT 1", *lifted, *second, *put_back]
    assert run.sessions_of("SECURITY") == {0}


async def test_a_text_that_ends_in_a_transaction_is_damaged() -> None:
    with pytest.raises(TextError, match="inside of a transaction"):
        await Run().load(b"BEGIN;")


async def test_a_client_command_among_rows_ends_the_load() -> None:
    with pytest.raises(TextError, match="client command"):
        await Run().load(entry("TABLE DATA") + b"COPY t FROM stdin;\n1\n\\.\n\\! id\n")


def test_the_same_setting_again_replaces_itself_and_moves_to_the_end() -> None:
    settings = Settings()
    for line, text in enumerate([b"SET a = 1", b"SET b = 1", b"SET a = 2", b"SET b = 1"], 1):
        settings.add(text, line)

    news, number = settings.since(0)

    assert news == [(b"SET a = 1", 1), (b"SET a = 2", 3), (b"SET b = 1", 4)]
    assert settings.since(number) == ([], number)
