"""A dump is whole only when program, exit status and its own end say so: told with programs that do not."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from agent.engines.pg.server import dump as dumping
from agent.engines.pg.server.clients import Client
from agent.engines.pg.server.connection import Login
from agent.engines.pg.server.dump import DumpForm, dump, pg_dump_argv
from common.errors import AppUnavailableError, ToolFailedError
from common.headers import ArchiveHeader
from common.seals import DUMP_CLOSING_START, SealReader, is_dump_closing

NOWHERE = Login("127.0.0.1", 1, "app", "app", "secret-password")
TEXT = "SELECT 1;\n\n--\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict key\n\n"


def program(folder: Path, script: str) -> Client:
    """A pg_dump that does something else."""
    file = folder / "pg_dump"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return Client(folder, 17, 10)


async def run(client: Client, form: DumpForm) -> bytes:
    header = ArchiveHeader(recipe="postgresql")
    dumping = dump(
        NOWHERE,
        client,
        form=form,
        header=header,
        app_id="shop.db",
        encoding="UTF8",
        without=(),
        on_read=lambda _: None,
    )
    async with dumping as chunks:
        return b"".join([chunk async for chunk in chunks])


async def test_text_is_sealed_and_compressed(tmp_path: Path) -> None:
    client = program(tmp_path, f"printf '%s' '{TEXT}'")

    plain = await run(client, DumpForm.SQL)
    unpacked = gzip.decompress(await run(client, DumpForm.SQL_GZIP))

    assert plain == unpacked
    assert TEXT.encode() in plain
    seal = SealReader()
    seal.add(plain)
    seal.finish()
    assert seal.header == ArchiveHeader(recipe="postgresql")


@pytest.mark.parametrize("form", [DumpForm.SQL, DumpForm.SQL_GZIP])
async def test_text_without_its_last_line_is_an_error_though_the_program_succeeded(
    tmp_path: Path, form: DumpForm
) -> None:
    client = program(tmp_path, "echo 'SELECT 1;'")

    with pytest.raises(ToolFailedError, match="without the line"):
        await run(client, form)


@pytest.mark.parametrize("output", ["PGDMPxxx", "xxx\\000\\000\\000\\000\\000"])
async def test_an_archive_without_its_beginning_or_end_is_an_error(tmp_path: Path, output: str) -> None:
    client = program(tmp_path, f"printf '{output}'")

    with pytest.raises(ToolFailedError, match="before the end of its archive"):
        await run(client, DumpForm.CUSTOM)


async def test_a_whole_archive_is_passed_on_as_it_is_with_our_seal_behind_it(tmp_path: Path) -> None:
    client = program(tmp_path, "printf 'PGDMPxxx\\000\\000\\000\\000\\000'")

    archive = await run(client, DumpForm.CUSTOM)

    assert archive.startswith(b"PGDMPxxx" + bytes(5) + DUMP_CLOSING_START)
    assert is_dump_closing(archive[13:])


async def test_a_program_that_fails_while_the_server_is_gone_means_that(tmp_path: Path) -> None:
    client = program(tmp_path, f"printf '%s' '{TEXT}'; exit 1")

    with pytest.raises(AppUnavailableError, match="does not answer"):
        await run(client, DumpForm.SQL)


async def test_a_program_that_fails_by_itself_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dumping, "connect", lambda _: _Reachable())
    client = program(tmp_path, "echo 'out of memory' >&2; exit 3")

    with pytest.raises(ToolFailedError, match="pg_dump ended with status 3: out of memory"):
        await run(client, DumpForm.SQL)


class _Reachable:
    async def __aenter__(self) -> _Reachable:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def execute(self, *_: object) -> _Reachable:
        return self

    async def fetchall(self) -> list[object]:
        return []


async def test_the_password_is_in_the_environment_and_not_on_argv(tmp_path: Path) -> None:
    client = program(tmp_path, f"echo \"$PGPASSWORD $*\" > {tmp_path}/seen; printf '%s' '{TEXT}'")

    await run(client, DumpForm.SQL)

    password, _, argv = (tmp_path / "seen").read_text().partition(" ")
    assert password == "secret-password"
    assert "secret" not in argv
    assert "--no-password" in argv


@pytest.mark.parametrize(("major", "option"), [(15, "--compress=1"), (16, "--compress=gzip:1")])
def test_compression_is_asked_for_as_each_major_spells_it(tmp_path: Path, major: int, option: str) -> None:
    assert option in pg_dump_argv(Client(tmp_path, major, 10), DumpForm.CUSTOM, encoding="UTF8", without=())
