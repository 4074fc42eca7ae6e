"""Which key fits, and what is encrypted again."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator

import pytest

from agent.engines.n8n.encryption import CBC_START, CBC_TOKEN, decrypt, encrypt, unwrap, wrap
from agent.engines.n8n.rekeying import drop_secrets, fit_of, rekey
from agent.engines.n8n.stores import SqliteStore


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    opened = sqlite3.connect(":memory:", isolation_level=None)
    opened.executescript("""
        CREATE TABLE credentials_entity (id varchar(36) PRIMARY KEY, name varchar(128), data text);
        CREATE TABLE deployment_key (id varchar(36) PRIMARY KEY, type varchar, value text, algorithm varchar);
        CREATE TABLE settings (key varchar PRIMARY KEY, value text);
        CREATE TABLE execution_data (id integer PRIMARY KEY, data text);
    """)
    yield opened
    opened.close()


def add_credential(connection: sqlite3.Connection, name: str, data: str) -> None:
    connection.execute("INSERT INTO credentials_entity VALUES (?, ?, ?)", (name, name, data))


def test_without_anything_secret_every_key_fits(connection: sqlite3.Connection) -> None:
    assert fit_of(SqliteStore(connection), "any").is_right


def test_a_key_fits_though_a_single_credential_does_not_open(connection: sqlite3.Connection) -> None:
    add_credential(connection, "good", encrypt("{}", "key"))
    add_credential(connection, "lost", encrypt("{}", "a key before that"))
    store = SqliteStore(connection)

    fit = fit_of(store, "key")

    assert fit.is_right
    assert fit.unreadable == ["credential lost (lost)"]
    assert not fit_of(store, "wrong").is_right


def test_a_wrapped_key_that_does_not_open_is_one_too_many(connection: sqlite3.Connection) -> None:
    add_credential(connection, "good", encrypt("{}", "key"))
    row = ("k", "signing.hmac", wrap("secret", "another"), "aes-256-gcm")
    connection.execute("INSERT INTO deployment_key VALUES (?, ?, ?, ?)", row)

    fit = fit_of(SqliteStore(connection), "key")

    assert fit.readable == 1
    assert not fit.is_right


def test_what_opens_with_the_wrong_key_by_chance_is_no_credential(connection: sqlite3.Connection) -> None:
    add_credential(connection, "no JSON", encrypt("not JSON", "key"))

    assert not fit_of(SqliteStore(connection), "key").is_right


def test_only_what_is_under_the_old_key_changes(connection: sqlite3.Connection) -> None:
    mine, foreign, rotated = encrypt("mine", "old"), encrypt("foreign", "theirs"), f"k-data:{encrypt('x', 'old')}"
    connection.execute("INSERT INTO settings VALUES ('s', ?)", (json.dumps([mine, foreign, rotated, mine]),))
    connection.execute("INSERT INTO execution_data VALUES (1, ?)", (mine,))
    legacy = ("k-legacy", "data_encryption", wrap("old", "old"), "aes-256-cbc")
    rotating = ("k-data", "data_encryption", wrap("ab" * 32, "old"), "aes-256-gcm")
    connection.executemany("INSERT INTO deployment_key VALUES (?, ?, ?, ?)", [legacy, rotating])

    done = rekey(SqliteStore(connection), "old", "new")

    [(text,)] = connection.execute("SELECT value FROM settings")
    first, second, third, fourth = json.loads(text)
    assert (decrypt(first, "new"), decrypt(fourth, "new")) == ("mine", "mine")
    assert (second, third) == (foreign, rotated)
    assert (done.secrets, done.left) == (4, ["settings.value"])
    assert unwrap(connection.execute("SELECT value FROM deployment_key").fetchone()[0], "new") == "new"
    assert connection.execute("SELECT data FROM execution_data").fetchone() == (mine,)


@pytest.mark.parametrize("text", ["password:{}", '{"url": "redis://u:{}"}', '["/{}", "{}"]', "k-gone:{}"])
@pytest.mark.parametrize("slash", ["/", "\\/"])
def test_a_value_is_found_whatever_stands_before_it_and_however_its_slashes_are_written(
    text: str, slash: str, connection: sqlite3.Connection
) -> None:
    secret = next(secret for _ in iter(int, 1) if "/" in (secret := encrypt("mine" * 100, "old")))
    written = text.replace("{}", secret.replace("/", slash))
    connection.execute("INSERT INTO settings VALUES ('s', ?)", (written,))

    done = rekey(SqliteStore(connection), "old", "new")

    [(changed,)] = connection.execute("SELECT value FROM settings")
    values = [match["value"] for match in CBC_TOKEN.finditer(changed)]
    assert {decrypt(value, "new") for value in values} == {"mine" * 100}
    assert CBC_TOKEN.sub(lambda match: match[0].replace(match["value"], "{}"), changed) == text
    assert (done.secrets, done.left) == (text.count("{}"), [])


def test_what_stands_before_a_value_stays_when_secrets_are_left_out(connection: sqlite3.Connection) -> None:
    data_key = ("k-data", "data_encryption", wrap("ab" * 32, "old"), "aes-256-gcm")
    connection.execute("INSERT INTO deployment_key VALUES (?, ?, ?, ?)", data_key)
    secret = encrypt("mine", "old")
    connection.execute("INSERT INTO settings VALUES ('s', ?)", (f"redis://u:{secret} k-data:{secret}",))

    drop_secrets(SqliteStore(connection), "new")

    [(changed,)] = connection.execute("SELECT value FROM settings")
    assert re.sub(r"U2Fsd\S*", "<>", changed) == "redis://u:<> <>"
    assert [decrypt(match["value"], "new") for match in CBC_TOKEN.finditer(changed)] == ["", ""]


def test_odd_names_of_tables_and_columns_do_no_harm(connection: sqlite3.Connection) -> None:
    connection.execute('CREATE TABLE "a""b; DROP TABLE settings" ("c""d {table} ?" text)')
    connection.execute('INSERT INTO "a""b; DROP TABLE settings" VALUES (?)', (encrypt("mine", "old"),))

    rekey(SqliteStore(connection), "old", "new")

    [(value,)] = connection.execute('SELECT * FROM "a""b; DROP TABLE settings"').fetchall()
    assert decrypt(value, "new") == "mine"


MINE = object()
"""In the place of something encrypted."""
ODD_TABLES: dict[str, tuple[str, str, list[tuple[object, ...]]]] = {
    "no rowid": ("t (k, t text, PRIMARY KEY (k, t)) WITHOUT ROWID", "k, t", [(1, "x"), (1, MINE), (b"\xff", "y")]),
    "odd names in a key": ('"{t} %" ("{k} ?" PRIMARY KEY, t text) WITHOUT ROWID', '"{k} ?", t', [(1, MINE), (2, "x")]),
    "keys that differ in case": (
        "t (k text COLLATE NOCASE, t text, PRIMARY KEY (k COLLATE BINARY)) WITHOUT ROWID",
        "k, t",
        [("A", "x"), ("a", MINE)],
    ),
    "columns in the place of all rowids": (
        "t (rowid, _rowid_, oid, t text)",
        "rowid, _rowid_, oid, t",
        [(1, None, 2.5, MINE), (1, None, 2.5, "x")],
    ),
    "a column in the place of the rowid": ("t (rowid text, t text)", "rowid, t", [("same", MINE), ("same", "x")]),
    "generated columns": ("t (g text AS (t || '!'), t text, s text AS (t) STORED UNIQUE)", "t", [(MINE,), ("x",)]),
    "no name": ('"" (t text)', "t", [(MINE,), ("x",)]),
    "an index of words": ("words USING fts5(t)", "t", [(MINE,), ("x",)]),
}


@pytest.mark.parametrize("case", ODD_TABLES)
def test_a_table_of_any_kind_is_encrypted_again(case: str, connection: sqlite3.Connection) -> None:
    definition, columns, rows = ODD_TABLES[case]
    table = definition.partition(" USING" if "USING" in definition else " (")[0]
    connection.execute(f"CREATE {'VIRTUAL ' * ('USING' in definition)}TABLE {definition}")
    for row in rows:
        values = [encrypt("mine", "old") if value is MINE else value for value in row]
        connection.execute(f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' * len(values))})", values)

    done = rekey(SqliteStore(connection), "old", "new")

    found = [
        tuple(MINE if str(value).startswith(CBC_START) and decrypt(value, "new") == "mine" else value for value in row)
        for row in connection.execute(f"SELECT {columns} FROM {table}")
    ]
    assert sorted(found, key=str) == sorted(rows, key=str)
    assert (done.secrets, done.left) == (1, [])
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    if "fts5" in definition:
        connection.execute("INSERT INTO words (words) VALUES ('integrity-check')")


def test_executions_that_did_not_succeed_can_be_gone_on_with_under_the_new_key(connection: sqlite3.Connection) -> None:
    text = json.dumps(["who started it", encrypt("a cookie", "old")])
    connection.executescript("""
        DROP TABLE execution_data;
        CREATE TABLE execution_entity (id integer PRIMARY KEY, status varchar);
        CREATE TABLE execution_data ("executionId" integer PRIMARY KEY, data text NOT NULL);
    """)
    for identity, status in enumerate(("waiting", "error", "success", None)):
        connection.execute("INSERT INTO execution_entity VALUES (?, ?)", (identity, status))
        connection.execute("INSERT INTO execution_data VALUES (?, ?)", (identity, text))

    done = rekey(SqliteStore(connection), "old", "new")

    rows = connection.execute('SELECT data FROM execution_data ORDER BY "executionId"')
    found = [json.loads(data)[1] for (data,) in rows]
    assert [decrypt(value, "new") for value in (found[0], found[1], found[3])] == ["a cookie"] * 3
    assert decrypt(found[2], "old") == "a cookie"
    assert (done.secrets, done.left) == (3, [])
