"""A table's hash tells apart what a dump tells apart, and is the same on every major."""

from __future__ import annotations

import pytest
from psycopg import sql

from agent.engines.pg.exports.row_hash import MOST_NESTED, row_hash
from tests.fixtures.variants import variants
from tests.integration.agent.engines.pg.apps import PostgresApp
from tests.integration.agent.engines.pg.conftest import MakeApp

PAIRS = [
    ("bool", "true", "false"),
    ("int2", "-1", "1"),
    ("int4", "0", "1"),
    ("int8", "4294967296", "1"),
    ("int8", "-1", "4294967295"),
    ("int8", "1", "NULL"),
    ("int4", "1", "NULL"),
    ("int8", "9223372036854775807", "-9223372036854775808"),
    ("oid", "4294967295", "0"),
    ("text", "'a'", "'A'"),
    ("text", "''", "NULL"),
    ("text", "'NULL'", "NULL"),
    ("varchar(9)", "'a '", "'a'"),
    ("char(9)", "'a'", "'b'"),
    ('"char"', "'a'", "'b'"),
    ("name", "'a'", "'b'"),
    ("timestamp", "'infinity'", "'-infinity'"),
    ("timestamp", "'2026-10-25 00:30:00.000001'", "'2026-10-25 00:30'"),
    ("timestamptz", "'2026-10-25 00:30Z'", "'2026-10-25 01:30Z'"),
    ("timestamptz", "'infinity'", "'-infinity'"),
    ("timestamptz", "'infinity'", "'2000-01-01 00:35:47.483648Z'"),
    ("timestamp", "'-infinity'", "'2000-01-01 00:35:47.483647'"),
    ("uuid", "'00000000-0000-0000-0000-000000000000'", "NULL"),
    ("bool", "false", "NULL"),
    ("date", "'infinity'", "'5874897-12-31'"),
    ("uuid", "'00000000-0000-0000-0000-000000000001'", "'00000000-0000-0000-0000-000000000000'"),
    ("numeric", "1.0", "1.00"),
    ("float8", "'-0'", "'0'"),
    ("float4", "'NaN'", "'Infinity'"),
    ("jsonb", "'{\"a\": 1.0}'", "'{\"a\": 1.00}'"),
    ("bytea", "'\\x00'", "'\\x0000'"),
    ("interval", "'1 day'", "'24 hours'"),
    ("int4[]", "'{1,NULL}'", "'{1}'"),
    ("text[]", "'{}'", "NULL"),
]


async def hash_of(app: PostgresApp, statement: str) -> str:
    app.run(f"DROP TABLE IF EXISTS hashed; {statement}")
    return (await app.fingerprint()).tables["public.hashed"].hash


@pytest.mark.parametrize(("kind", "value", "other"), PAIRS)
async def test_two_values_that_a_dump_tells_apart_have_two_hashes(
    app: PostgresApp, kind: str, value: str, other: str
) -> None:
    one, two = [
        await hash_of(app, f"CREATE TABLE hashed (n int, v {kind}); INSERT INTO hashed VALUES (1, {said})")
        for said in (value, other)
    ]

    assert one != two


@pytest.mark.parametrize(
    ("rows", "other"),
    [
        ("('1', '2')", "('2', '1')"),
        ("('1', NULL)", "(NULL, '1')"),
        ("('1', '2'), ('3', '4')", "('1', '4'), ('3', '2')"),
        ("('1', '1')", "('2', '2')"),
        ("('1', '1'), ('1', '1')", "('2', '2'), ('2', '2')"),
    ],
)
@variants("kind", ["int", "text", "numeric"])
async def test_a_value_counts_where_it_stands(app: PostgresApp, kind: str, rows: str, other: str) -> None:
    one, two = [
        await hash_of(app, f"CREATE TABLE hashed (n {kind}, v {kind}); INSERT INTO hashed VALUES {said}")
        for said in (rows, other)
    ]

    assert one != two


async def test_the_order_of_rows_does_not_count(app: PostgresApp) -> None:
    there, back = [
        await hash_of(app, f"CREATE TABLE hashed AS SELECT n, n::text AS v FROM generate_series({rows}) AS n")
        for rows in ("1, 100", "100, 1, -1")
    ]

    assert there == back


async def test_a_hash_is_the_same_on_every_major(make_app: MakeApp) -> None:
    columns = ", ".join(f"c{n} {kind}" for n, (kind, _, _) in enumerate(PAIRS))
    rows = ", ".join(f"({', '.join(pair[which] for pair in PAIRS)})" for which in (1, 2))
    statement = f"CREATE TABLE hashed ({columns}); INSERT INTO hashed VALUES {rows}"

    hashes = {major: await hash_of(make_app(major), statement) for major in (13, 15, 16, 17, 18)}

    assert len(set(hashes.values())) == 1, hashes


@variants(
    "columns",
    ["'order ' || n AS v", "n AS v", "n::bigint AS v", "n::bigint << 31 AS v", "n % 512 AS n, n / 512 AS v"],
    every=3,
)
async def test_a_hash_has_64_bits_for_every_row(app: PostgresApp, columns: str) -> None:
    app.run(f"CREATE TABLE many AS SELECT {columns} FROM generate_series(1, 300000) AS n")
    types = app.run(
        "SELECT attname, typname FROM pg_attribute JOIN pg_type t ON t.oid = atttypid"
        " WHERE attrelid = 'many'::regclass AND attnum > 0 ORDER BY attnum"
    )
    hashes = row_hash(types, sql.Identifier("many"))

    (found,) = app.run(
        sql.SQL(
            "SELECT count(DISTINCT h), count(DISTINCT h & 4294967295), count(DISTINCT h >> 32)"
            " FROM (SELECT {} AS h FROM many) AS hashed"
        ).format(hashes)
    )

    assert found[0] == 300_000
    # Of two halves with 32 bits, about ten rows have the same.
    assert min(found[1:]) > 299_900


async def test_a_table_of_many_columns_is_hashed(app: PostgresApp) -> None:
    columns = ", ".join(f"c{number} int DEFAULT {number}" for number in range(1500))
    app.run(f"CREATE TABLE wide ({columns}); INSERT INTO wide DEFAULT VALUES")
    before = (await app.fingerprint()).tables["public.wide"]
    app.run("UPDATE wide SET c1499 = 0")

    assert (await app.fingerprint()).tables["public.wide"].hash != before.hash


async def test_as_many_columns_as_are_hashed_one_by_one_fit_a_server(app: PostgresApp) -> None:
    columns = ", ".join(f"c{number} text DEFAULT '{number}'" for number in range(MOST_NESTED))
    app.run(f"CREATE TABLE nested ({columns}); INSERT INTO nested DEFAULT VALUES")
    before = (await app.fingerprint()).tables["public.nested"]
    app.run("UPDATE nested SET c0 = NULL")

    assert (await app.fingerprint()).tables["public.nested"].hash != before.hash


async def test_a_name_of_a_column_is_no_name_of_its_table(app: PostgresApp) -> None:
    app.run("CREATE TABLE odd (\"row\", \"odd\") AS VALUES (1, 'one'), (2, 'two')")
    before = (await app.fingerprint()).tables["public.odd"]
    app.run('UPDATE odd SET "odd" = \'three\' WHERE "row" = 2')
    after = (await app.fingerprint()).tables["public.odd"]

    assert before.rows == after.rows == 2
    assert before.hash != after.hash


async def test_a_table_without_columns_is_counted(app: PostgresApp) -> None:
    app.run("CREATE TABLE nothing (); INSERT INTO nothing DEFAULT VALUES; INSERT INTO nothing DEFAULT VALUES")

    assert (await app.fingerprint()).tables["public.nothing"].rows == 2


async def test_a_trigger_of_a_partitioned_table_counts_once_on_every_major(make_app: MakeApp) -> None:
    """Its copies of the partitions are internal before PostgreSQL 15 and not since."""
    found = []
    for major in (14, 15, 18):
        app = make_app(major)
        app.run(
            "CREATE TABLE t (a int) PARTITION BY RANGE (a); CREATE TABLE p PARTITION OF t DEFAULT;"
            " CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
            " CREATE TRIGGER g AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION f(); ALTER TABLE t DISABLE TRIGGER g",
            as_app=True,
        )
        found.append(await app.fingerprint())

    assert [one.objects["trigger D"] for one in found] == [1, 1, 1]
    assert {one.comparable().scheme for one in found} == {"postgresql/3"}
    assert len({one.comparable().sha256 for one in found}) == 1
