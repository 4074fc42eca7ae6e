"""What an error of the client programs means for an upload."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.engines.mariadb.server.client import error_of_load
from agent.engines.mariadb.server.settings import Login
from common.errors import (
    AppUnavailableError,
    ArchiveDamagedError,
    ArchiveIncompatibleError,
    ArchiveRefusedError,
    NoSpaceError,
    ServiceError,
)

LOGIN = Login("127.0.0.1", 3306, "loader", "", Path("/usr/bin"))


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (1142, ArchiveRefusedError),
        (1273, ArchiveIncompatibleError),
        (1418, ArchiveIncompatibleError),
        (1419, ArchiveIncompatibleError),
        (3105, ArchiveIncompatibleError),
        (1067, ArchiveIncompatibleError),
        (1062, ArchiveDamagedError),
        (1021, NoSpaceError),
        # The account has as many connections as it may have.
        (1203, AppUnavailableError),
        (1226, AppUnavailableError),
    ],
)
def test_the_servers_error_number_decides_whose_fault_it_is(number: int, error: type[ServiceError]) -> None:
    found = error_of_load(f"mariadb ended with status 1: ERROR {number} (HY000) at line 4: said so", LOGIN)

    assert type(found) is error
    assert "said so" in found.text


@pytest.mark.parametrize(
    ("number", "said", "error"),
    [
        (1030, 'Got error 24 "Too many open files" from storage engine MyISAM', AppUnavailableError),
        (1016, "Can't open file: './new/p.MYI' (errno: 24 \"Too many open files\")", AppUnavailableError),
        (23, "Out of resources when opening file './p.MYD' (Errcode: 24)", AppUnavailableError),
        (1030, 'Got error 175 "File too short" from storage engine Aria', ArchiveDamagedError),
        (1062, "Duplicate entry 'error 24' for key 'PRIMARY'", ArchiveDamagedError),
    ],
)
def test_that_the_server_may_open_no_more_files_is_no_fault_of_the_file(
    number: int, said: str, error: type[ServiceError]
) -> None:
    assert type(error_of_load(f"ERROR {number} (HY000) at line 4: {said}", LOGIN)) is error
