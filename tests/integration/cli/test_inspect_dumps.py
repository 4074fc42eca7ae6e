"""What `mathison inspect` says of dumps that the real pg_dump made, whole and damaged."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import psycopg
import pytest

from cli.inspecting import Inspection, inspect
from tests.fixtures.variants import variants
from tools.servers import PostgresServer


def look_at(path: Path) -> Inspection:
    with path.open("rb", buffering=0) as file:
        return inspect(file, path, lambda done, total: None)


@pytest.fixture(scope="module", params=[15, 16, 18])
def pg_dump(
    request: pytest.FixtureRequest, postgres_servers: Callable[[int], PostgresServer]
) -> Iterator[Callable[..., bytes]]:
    """A dump of a database with two tables, one of them empty, and a large object. Archives 1.14, 1.15, 1.16."""
    server = postgres_servers(request.param)
    database = f"inspect_{os.urandom(4).hex()}"
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {database}")
    with psycopg.connect(server.dsn(database), autocommit=True) as connection:
        connection.execute("CREATE TABLE filled AS SELECT n, md5(n::text) FROM generate_series(1, 20000) n")
        connection.execute("CREATE TABLE empty (n int)")
        connection.execute("SELECT lo_from_bytea(0, decode(repeat('ab', 100000), 'hex'))")

    @cache
    def run(*arguments: str) -> bytes:
        program = server.install.program("pg_dump")
        with tempfile.NamedTemporaryFile() as file:
            subprocess.run([program, *arguments, "-f", file.name], env=server.environment(database), check=True)
            return Path(file.name).read_bytes()

    yield run
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {database}")


@pytest.fixture
def dump(pg_dump: Callable[..., bytes], tmp_path: Path) -> Callable[..., Path]:
    """It in a file of the test's own, by pg_dump's arguments."""

    def write(*arguments: str) -> Path:
        path = tmp_path / "dump"
        path.write_bytes(pg_dump(*arguments))
        return path

    return write


@variants("arguments", [["-Fc"], ["-Fc", "-Z0"], ["-Fc", "-Z9"]], ids=" ".join, kept=[["-Fc"]])
def test_a_whole_custom_dump_is_plausible_and_tells_what_it_is(dump: Callable[..., Path], arguments: list[str]) -> None:
    inspection = look_at(dump(*arguments))

    assert (inspection.kind, inspection.completeness, inspection.error) == ("custom", "plausible", None)
    assert inspection.counts == {"tables": 2}
    assert inspection.facts["Database"].startswith("inspect_")


@variants("arguments", [["-Fc"], ["-Fc", "-Z0"]], ids=" ".join, kept=[["-Fc"]])
def test_a_custom_dump_that_is_cut_anywhere_is_damaged(dump: Callable[..., Path], arguments: list[str]) -> None:
    path = dump(*arguments)
    whole = path.read_bytes()

    verdicts = set()
    for size in range(11, len(whole), max(1, len(whole) // 40)):
        path.write_bytes(whole[:size])
        verdicts.add(look_at(path).completeness)

    assert verdicts == {"damaged"}


def test_a_flipped_bit_in_the_compressed_rows_is_damage(dump: Callable[..., Path]) -> None:
    path = dump("-Fc")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    assert look_at(path).completeness == "damaged"


def test_pg_dumps_tar_is_named(dump: Callable[..., Path]) -> None:
    inspection = look_at(dump("-Ft"))

    assert (inspection.kind, inspection.completeness) == ("tar", "plausible")
    assert "pg_dump -Ft" in inspection.title


def test_pg_dumps_text_is_named_and_its_cut_noticed(dump: Callable[..., Path]) -> None:
    path = dump("-Fp")

    whole = look_at(path)
    path.write_bytes(path.read_bytes()[:-200])
    cut = look_at(path)

    assert (whole.kind, whole.completeness, whole.counts) == ("sql", "plausible", {"tables": 2})
    assert cut.completeness == "damaged"
