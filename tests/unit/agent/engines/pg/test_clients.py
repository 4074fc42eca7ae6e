"""Which client programs are taken, told by what the programs say of themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.engines.pg.server.clients import Client, Clients
from common.errors import ToolFailedError


def programs(folder: Path, said: str, *, status: int = 0) -> Path:
    """A directory with a pg_dump that prints a version."""
    directory = folder / said.replace(" ", "_") / "bin"
    directory.mkdir(parents=True)
    for name in ("pg_dump", "pg_restore"):
        (directory / name).write_text(f"#!/bin/sh\necho '{said}'\nexit {status}\n")
        (directory / name).chmod(0o755)
    return directory


@pytest.fixture
def clients(tmp_path: Path) -> Clients:
    return Clients(
        [
            programs(tmp_path, "pg_dump (PostgreSQL) 17.10"),
            programs(tmp_path, "pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"),
            programs(tmp_path, "pg_dump (PostgreSQL) 17.11"),
            programs(tmp_path, "pg_dump (PostgreSQL) 19beta1"),
            programs(tmp_path, "pg_dump (PostgreSQL) 16.2", status=1),
            programs(tmp_path, "something else"),
            tmp_path / "missing",
        ]
    )


async def test_versions_are_read_and_what_does_not_start_is_left_out(clients: Clients) -> None:
    assert [client.version for client in await clients.all()] == ["15.18", "17.10", "17.11", "19.0"]


@pytest.mark.parametrize(
    ("server", "version"),
    [(130_023, "15.18"), (150_020, "15.18"), (160_014, "17.11"), (170_004, "17.11"), (180_000, "19.0")],
)
async def test_the_servers_own_major_is_taken_else_the_lowest_newer_one(
    clients: Clients, server: int, version: str
) -> None:
    assert (await clients.for_server(server)).version == version


async def test_older_programs_are_never_taken_and_the_error_says_what_to_install(clients: Clients) -> None:
    with pytest.raises(ToolFailedError, match=r"20 or newer is needed, found: 15\.18") as error:
        await clients.for_server(200_000)

    assert "postgresql-client-20" in error.value.next_step


@pytest.mark.parametrize(
    ("archive", "server", "version"),
    [
        (14, 150_000, "15.18"),
        (15, 150_000, "17.11"),
        (16, 150_000, "17.11"),
        (16, 180_000, "19.0"),
        (12, 130_000, "15.18"),
    ],
)
async def test_an_archive_is_read_by_programs_that_can_and_suit_the_server(
    clients: Clients, archive: int, server: int, version: str
) -> None:
    assert (await clients.for_archive(archive, server_version_num=server)).version == version


@pytest.mark.parametrize(
    ("major", "minor", "is_safe"),
    [(17, 9, False), (17, 10, True), (18, 4, True), (18, 3, False), (13, 99, False), (19, 0, True)],
)
def test_programs_with_a_known_hole_are_not_safe(major: int, minor: int, is_safe: bool) -> None:
    assert Client(Path("/x"), major, minor).is_safe is is_safe


def test_a_libpq_beside_the_programs_is_found(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    without = Client(tmp_path / "bin", 17, 10).environment()
    (tmp_path / "lib" / "libpq.so.5").touch()

    assert without == {}
    assert Client(tmp_path / "bin", 17, 10).environment() == {"LD_LIBRARY_PATH": str(tmp_path / "lib")}
