"""`make matrix` writes what the cells were into a page."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.integration.agent.engines.pg.conftest import make_app
from tests.matrix.cells import PROPERTY, Cell, Note, as_markdown, note_on

__all__ = ["make_app"]

OPENING = """# The version matrix

Written by `make matrix`: the data of each server on the left, exported and imported into the server above. *equal*: the
content's fingerprint is the same on both sides. Otherwise the reason (docs/errors.md) with which the import was refused
before anything changed. Nothing ends half-way.

PostgreSQL 13 has no words for two things of newer servers: range types made by users (with each, newer dumps name a
multirange type) and functions with a parsed body (`BEGIN ATOMIC`). A dump with either is refused as
ARCHIVE_INCOMPATIBLE; its column here is for data without them.

Uptime Kuma 2 migrates data of version 1 when it starts; *equal* is what it finds then.

MinIO's table crosses its archives, `tar` of a drive and portable `s3`, with servers of one release: with one drive or
four, and with a KMS; the archives of one with a KMS hold encrypted objects.

n8n's data is made by the tests in the forms that n8n 1 and 2 write; `make test-n8n` has a real n8n start on it.

"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-matrix", metavar="FILE", type=Path, help="write the tables of the version matrix there")


def pytest_configure(config: pytest.Config) -> None:
    if (path := config.getoption("--write-matrix")) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Writer(path))


class _Writer:
    """Collects cells from the reports of all workers."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._cells: list[Cell] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self._cells += [msgspec.convert(value, Cell) for name, value in report.user_properties if name == PROPERTY]

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        if exitstatus == pytest.ExitCode.OK:
            self._path.write_text(OPENING + as_markdown(self._cells))


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Note:
    return note_on(request)
