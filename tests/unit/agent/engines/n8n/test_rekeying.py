"""Which key fits, and what is encrypted again."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator

import pytest

from agent.engines.n8n.encryption import decrypt, encrypt, unwrap, wrap
from agent.engines.n8n.rekeying import fit_of, rekey
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
    connection.execute("INSERT INTO deployment_key VALUES (?, ?, ?, ?)", legacy)

    done = rekey(SqliteStore(connection), "old", "new")

    [(text,)] = connection.execute("SELECT value FROM settings")
    first, second, third, fourth = json.loads(text)
    assert (decrypt(first, "new"), decrypt(fourth, "new")) == ("mine", "mine")
    assert (second, third) == (foreign, rotated)
    assert (done.secrets, done.left) == (3, ["settings.value"])
    assert unwrap(connection.execute("SELECT value FROM deployment_key").fetchone()[0], "new") == "new"
    assert connection.execute("SELECT data FROM execution_data").fetchone() == (mine,)


def test_odd_names_of_tables_and_columns_do_no_harm(connection: sqlite3.Connection) -> None:
    connection.execute('CREATE TABLE "a""b; DROP TABLE settings" ("c""d {table} ?" text)')
    connection.execute('INSERT INTO "a""b; DROP TABLE settings" VALUES (?)', (encrypt("mine", "old"),))

    rekey(SqliteStore(connection), "old", "new")

    [(value,)] = connection.execute('SELECT * FROM "a""b; DROP TABLE settings"').fetchall()
    assert decrypt(value, "new") == "mine"
