"""Large dumps flow: the loader stays small, rows of any length pass, sessions work side by side."""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fixtures.variants import variants
from tests.integration.agent.engines.pg.loading.conftest import MakeSource, MakeTarget
from tests.integration.agent.engines.pg.loading.targets import CLOSING, OPENING, Target, children_of_load

MIB = 1 << 20
MOST_LOADER_BYTES = 64 * MIB


def entry(name: str, kind: str) -> bytes:
    return f"--\n-- Name: {name}; Type: {kind}; Schema: public; Owner: -\n--\n\n".encode()


class Peak:
    """The most memory that the loader used, looked at before each piece of an upload."""

    def __init__(self) -> None:
        self.bytes = 0

    async def watch(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            yield chunk
            for child in children_of_load():
                if any("loader_child" in part for part in child.cmdline()):
                    status = Path(f"/proc/{child.pid}/status").read_text()
                    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
                    self.bytes = max(self.bytes, int(peak[1]) << 10 if peak else 0)


async def test_a_dump_of_any_size_is_loaded_in_little_memory(target: Target) -> None:
    line = secrets.token_hex(60).encode()
    rows = b"".join(b"%d\t%b\n" % (n, line) for n in range(8000))

    async def dump() -> AsyncIterator[bytes]:
        yield OPENING + b"CREATE TABLE t (a int, b text);\n" + entry("t", "TABLE DATA") + b"COPY t (a, b) FROM stdin;\n"
        for _ in range(75):
            yield rows
        yield b"\\.\n" + entry("i", "INDEX") + b"CREATE INDEX i ON t (a);\n" + CLOSING

    peak = Peak()

    loaded = await target.load(peak.watch(dump()))

    assert loaded.counts["rows"] == 600_000
    assert target.value("SELECT count(*) FROM t") == 600_000
    assert 0 < peak.bytes < MOST_LOADER_BYTES


@variants(
    ("mebibytes", "in_transaction"),
    [(200, False), (70, False), (50, True)],
    ids=["dealt out, far larger than the loader", "dealt out", "in one session"],
    kept=[(70, False), (50, True)],
)
async def test_a_row_of_many_mebibytes_passes_through(mebibytes: int, in_transaction: bool, target: Target) -> None:
    async def dump() -> AsyncIterator[bytes]:
        yield OPENING + b"CREATE TABLE t (a int, b text);\n"
        yield b"BEGIN;\n" if in_transaction else b""
        yield entry("t", "TABLE DATA") + b"COPY t (a, b) FROM stdin;\n1\tshort\n2\t"
        for _ in range(mebibytes):
            yield b"x" * MIB
        yield b"\n3\tlast\n\\.\n"
        yield b"COMMIT;\n" if in_transaction else b""
        yield CLOSING

    peak = Peak()

    loaded = await target.load(peak.watch(chunk async for chunk in dump() if chunk))

    assert loaded.counts["rows"] == 3
    assert target.run("SELECT a, length(b) FROM t ORDER BY a") == [(1, 5), (2, mebibytes * MIB), (3, 4)]
    assert 0 < peak.bytes < MOST_LOADER_BYTES


async def test_rows_of_one_table_are_copied_by_several_sessions(target: Target) -> None:
    rows = b"".join(b"%d\n" % n for n in range(100_000))
    copying = 0

    async def dump() -> AsyncIterator[bytes]:
        nonlocal copying
        yield OPENING + b"CREATE TABLE t (a int);\n" + entry("t", "TABLE DATA") + b"COPY t (a) FROM stdin;\n"
        for _ in range(20):
            yield rows
            copying = max(copying, target.sessions("query LIKE 'COPY%' AND state = 'active'"))
        yield b"\\.\n" + CLOSING

    await target.load(dump())

    assert copying == 3
    assert target.value("SELECT count(*) FROM t") == 2_000_000


async def test_a_server_with_room_for_one_session_is_loaded_by_one(target: Target) -> None:
    target.run(f"ALTER ROLE {target.name} CONNECTION LIMIT 1")
    rows = b"".join(b"%d\n" % n for n in range(300_000))
    table = b"CREATE TABLE t (a int);\n" + entry("t", "TABLE DATA") + b"COPY t (a) FROM stdin;\n"

    loaded = await target.load(OPENING + table + rows + b"\\.\n" + CLOSING)

    assert loaded.counts["rows"] == 300_000


async def test_settings_of_the_dump_hold_in_every_session(target: Target) -> None:
    rows = b"".join(b"01/02/2024\t2024-01-01 00:00:00\n" for n in range(100_000))

    async def dump() -> AsyncIterator[bytes]:
        yield OPENING + b"CREATE TABLE public.t (a date, b timestamptz);\nSET datestyle = 'ISO, DMY';\n"
        yield b"SET TIME ZONE 'Asia/Tokyo';\nSELECT pg_catalog.set_config('search_path', 'public', false);\n"
        yield entry("t", "TABLE DATA") + b"COPY t (a, b) FROM stdin;\n"
        for _ in range(6):
            yield rows
        yield b"\\.\n" + CLOSING

    await target.load(dump())

    assert target.run("SELECT DISTINCT a::text, b AT TIME ZONE 'UTC' = '2023-12-31 15:00' FROM t") == [
        ("2024-02-01", True)
    ]


async def test_keys_that_lock_each_others_tables_are_made_all_the_same(target: Target) -> None:
    tables = range(12)
    text = "".join(f"CREATE TABLE t{n} (id int PRIMARY KEY, other int);\n" for n in tables).encode()
    for n in tables:
        for other in (n + 1, n + 5, n + 7):
            name = f"t{n}_{other}"
            text += entry(f"t{n} {name}", "FK CONSTRAINT")
            text += (
                f"ALTER TABLE ONLY t{n} ADD CONSTRAINT {name} FOREIGN KEY (other) REFERENCES t{other % 12};\n".encode()
            )

    await target.load(OPENING + text + CLOSING)

    assert target.value("SELECT count(*) FROM pg_constraint WHERE contype = 'f'") == 36


async def test_comments_on_indexes_wait_for_their_indexes(target: Target) -> None:
    text = b"CREATE TABLE t (a int);\nINSERT INTO t SELECT generate_series(1, 100000);\n"
    for n in range(30):
        text += entry(f"i{n}", "INDEX") + b"CREATE INDEX i%d ON t (a);\n" % n
        text += entry(f"INDEX i{n}", "COMMENT") + b"COMMENT ON INDEX i%d IS 'comment %d';\n" % (n, n)

    await target.load(OPENING + text + CLOSING)

    assert target.value("SELECT count(*) FROM pg_description WHERE description ~ '^comment'") == 30


async def test_thousands_of_small_tables_load(target: Target) -> None:
    text = b"".join(b"CREATE TABLE t%d (a int);\nSET default_tablespace = '';\n" % n for n in range(600))
    for n in range(600):
        text += entry(f"t{n}", "TABLE DATA") + b"COPY t%d (a) FROM stdin;\n" % n + b"%d\n" % n * (n % 3) + b"\\.\n\n"
    for n in range(600):
        text += entry(f"i{n}", "INDEX") + b"CREATE INDEX i%d ON t%d (a);\n" % (n, n)

    loaded = await target.load(OPENING + text + CLOSING)

    assert (loaded.counts["tables"], loaded.counts["rows"]) == (600, 600)
    assert target.value("SELECT count(*) FROM pg_indexes WHERE schemaname = 'public'") == 600


async def test_rows_in_csv_load_in_one_session(target: Target) -> None:
    await target.load(
        OPENING
        + b"CREATE TABLE t (a int, b text);\n"
        + entry("t", "TABLE DATA")
        + b'COPY t (a, b) FROM stdin WITH (FORMAT csv);\n1,"two\nlines"\n2,x\n\\.\n'
        + CLOSING
    )

    assert target.run("SELECT a, b FROM t ORDER BY a") == [(1, "two\nlines"), (2, "x")]


async def test_inserts_that_fail_name_their_table(make_source: MakeSource, make_target: MakeTarget) -> None:
    source, target = make_source(17), make_target()
    source.run("CREATE TABLE t (a int); INSERT INTO t SELECT generate_series(1, 2000)")
    dump = source.dump("plain", "--inserts").replace(b"VALUES (1999)", b"VALUES ('x')")

    with pytest.raises(Exception, match='invalid input syntax for type integer: "x"'):
        await target.load(dump)
