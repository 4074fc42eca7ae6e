"""What a SQLite database is asked for a comparison, and when it gives no answer."""

from __future__ import annotations

import sqlite3
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from typing import Any

import msgspec
import pytest

from agent.engines.sqlite import questions
from agent.engines.sqlite.questions import asked
from agent.engines.table_parts import MOST_PARTS

KINDS = {"kinds": {"beats": ["beat", []], "tags": ["tag", ["id", "name"]]}}


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript("""
            CREATE TABLE beat (id INTEGER PRIMARY KEY, ping INT);
            CREATE TABLE tag (id INTEGER PRIMARY KEY, name TEXT);
            INSERT INTO beat VALUES (1, 5), (2, 5), (7, 6);
            INSERT INTO tag VALUES (1, 'prod'), (2, NULL);
        """)
        yield connection


def parts(connection: sqlite3.Connection) -> dict[str, Any]:
    found: dict[str, Any] = asked(connection, KINDS)["parts"]
    return found


def test_rows_are_told_by_id_and_things_by_their_names(database: sqlite3.Connection) -> None:
    found = parts(database)

    assert found["beats"]["width"] == 1
    assert set(found["beats"]["parts"]) == {"1", "2", "7"}
    assert [rows for rows, _ in found["tags"]["parts"].values()] == [1, 1]
    assert found["tags"]["columns"] == ["id", "name"]


def test_high_ids_are_taken_together_in_blocks(database: sqlite3.Connection) -> None:
    database.execute("INSERT INTO beat VALUES (1000000, 1)")

    found = parts(database)["beats"]

    assert sum(rows for rows, _ in found["parts"].values()) == 4
    assert len(found["parts"]) == 2


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE beat",
        "DROP TABLE beat; CREATE TABLE beat (ping INT)",
        "DROP TABLE beat; CREATE TABLE beat (id TEXT); INSERT INTO beat VALUES ('x')",
        f"WITH RECURSIVE n(i) AS (SELECT -1 UNION ALL SELECT i - 1 FROM n WHERE i > -{MOST_PARTS + 1})"
        " INSERT INTO beat SELECT i, 1 FROM n",
        "DROP TABLE beat; CREATE VIEW beat AS WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n)"
        " SELECT id FROM n",
    ],
    ids=["no table", "no id", "an id that is none", "too many parts", "a view without end"],
)
def test_a_kind_that_cannot_be_taken_apart_is_left_out(
    sql: str, database: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "PARTS_SECONDS", 0.3)
    database.executescript(sql)

    assert "beats" not in parts(database)


def test_the_comparison_ends_when_its_time_is_up(database: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "PARTS_SECONDS", -1.0)

    assert parts(database) == {}


@pytest.mark.parametrize(
    ("change", "told_of"),
    [
        ("UPDATE account SET password = CAST(password AS BLOB)", "account"),
        ("UPDATE account SET id = CAST(id AS TEXT)", "account"),
        ("UPDATE account SET odd = CAST(odd AS BLOB)", "account"),
        ("UPDATE sqlite_sequence SET seq = 0", "sqlite_sequence"),
        ("DROP INDEX one_name", "sqlite_schema"),
        ("ALTER TABLE account RENAME COLUMN name TO called", "sqlite_schema"),
        ("CREATE VIEW names AS SELECT name FROM account", "sqlite_schema"),
        ("PRAGMA user_version = 7", "sqlite_schema"),
        ("PRAGMA application_id = 7", "sqlite_schema"),
    ],
)
def test_a_digest_is_of_types_definitions_and_what_is_counted_up_from_too(
    change: str, told_of: str, database: sqlite3.Connection
) -> None:
    database.executescript(
        "CREATE TABLE account (id, name TEXT, password TEXT, odd); CREATE UNIQUE INDEX one_name ON account (name);"
        "INSERT INTO account VALUES (1, 'ann', 'secret', CAST(x'c328' AS TEXT));"
        "CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO counted VALUES (9);"
    )
    before = asked(database, {"with_content": True})["content"]

    database.execute(change)

    found = asked(database, {"with_content": True})["content"]
    assert {name for name in found if found[name] != before[name]} == {told_of}


@pytest.mark.parametrize("count", [0, 1, 15, 16, 999, 1000, 1001, 2300])
def test_a_digest_is_of_arrays_of_a_thousand_rows_as_in_every_archive_that_is_kept(
    count: int, database: sqlite3.Connection
) -> None:
    rows = [(number, f"täg {number}", None, number / 7) for number in range(count)]
    database.execute("CREATE TABLE kept (id INTEGER PRIMARY KEY, name TEXT, empty, part REAL)")
    database.executemany("INSERT INTO kept VALUES (?, ?, ?, ?)", rows)
    together = b"".join(msgspec.msgpack.encode(rows[at : at + 1000]) for at in range(0, count, 1000))

    found = asked(database, {"with_content": True})["content"]

    assert found["kept"] == f"{count} rows, {sha256(together).hexdigest()}"


@pytest.mark.parametrize("form", ["", "WITHOUT ROWID"])
@pytest.mark.parametrize("at", [0, 1, 99, 100, 150, 999, 1000, 1234, 2299])
def test_a_digest_is_the_same_wherever_rows_are_large(at: int, form: str, database: sqlite3.Connection) -> None:
    rows = [(number, b"x" * (100_000 if number in (at, at + 700) else number % 50)) for number in range(2300)]
    database.execute(f"CREATE TABLE kept (id INTEGER PRIMARY KEY, data) {form}")
    database.executemany("INSERT INTO kept VALUES (?, ?)", rows)
    together = b"".join(msgspec.msgpack.encode(rows[at : at + 1000]) for at in range(0, 2300, 1000))

    found = asked(database, {"with_content": True})["content"]

    assert found["kept"] == f"2300 rows, {sha256(together).hexdigest()}"


def test_a_query_after_a_digest_reads_values_of_any_length(database: sqlite3.Connection) -> None:
    asked(database, {"with_content": True})

    assert database.execute("SELECT length(hex(zeroblob(500000)))").fetchone() == (1_000_000,)


@pytest.mark.parametrize(
    "request_",
    [{"with_content": True}, {"kinds": {"large": ["large", []]}}],
    ids=["all content", "a comparison"],
)
@pytest.mark.parametrize("small", [0, 150], ids=["from the first on", "after small ones"])
def test_large_rows_are_read_one_at_a_time(small: int, request_: dict[str, Any], database: sqlite3.Connection) -> None:
    row_bytes = 1 << 20
    database.execute("CREATE TABLE large (id INTEGER PRIMARY KEY, data BLOB)")
    rows = [(number, row_bytes if number >= small else 10) for number in range(small + 40)]
    database.executemany("INSERT INTO large VALUES (?, zeroblob(?))", rows)

    tracemalloc.start()
    try:
        found = asked(database, request_)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert found
    assert peak < 8 * row_bytes


def test_an_answer_that_becomes_too_long_is_not_read_to_its_end(database: sqlite3.Connection) -> None:
    database.execute("CREATE TABLE large (data BLOB)")
    database.executemany("INSERT INTO large VALUES (zeroblob(?))", [(1 << 20,)] * 40)

    tracemalloc.start()
    try:
        with pytest.raises(sqlite3.DataError, match="too long"):
            asked(database, {"queries": {"data": "SELECT data FROM large"}})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 8 << 20


def test_bytes_where_an_app_has_text_are_told_as_text(database: sqlite3.Connection) -> None:
    database.execute("UPDATE tag SET name = CAST('prod' AS BLOB) WHERE id = 1")

    assert asked(database, {"queries": {"tags": "SELECT name FROM tag"}})["rows"] == {"tags": [["prod"], [None]]}


def test_columns_that_are_generated_do_not_shift_what_tells_a_row(database: sqlite3.Connection) -> None:
    database.executescript("""
        DROP TABLE tag;
        CREATE TABLE tag (twice AS (id * 2), id INTEGER PRIMARY KEY, name TEXT);
        INSERT INTO tag (id, name) VALUES (1, 'prod'), (2, NULL);
    """)
    before = parts(database)["tags"]
    database.execute("UPDATE tag SET name = 'other' WHERE id = 2")

    after = parts(database)["tags"]

    assert len(before["parts"].keys() & after["parts"].keys()) == 1
    assert before["columns"] == ["twice", "id", "name"]


def test_a_digest_without_some_columns_is_without_what_follows_from_them(database: sqlite3.Connection) -> None:
    request = {"with_content": True, "without_columns": {"tag": ["name", "id"], "beat": ["ping"]}}
    database.execute("ALTER TABLE tag ADD COLUMN length AS (length(name))")
    before = asked(database, request)["content"]
    database.execute("UPDATE tag SET name = 'another'")

    assert asked(database, request)["content"] == before
