"""Uptime Kuma 1.23 and 2.5, on SQLite and on both kinds of MariaDB, with data that the real ones wrote, each into each.

The clean sets and those that were copied beside a running app hold the same rows; the latter only with their -wal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest

from common.errors import ArchiveError, ArchiveIncompatibleError, ArchiveWrongKindError
from tests.fakes.imports import MemoryRecord
from tests.fixtures.kuma_apps import KUMA_1, KUMA_1_LIVE, KUMA_2, KUMA_2_LIVE, KumaApp
from tests.fixtures.kuma_embedded import KumaWithServer
from tests.fixtures.mariadb_apps import MariadbApp
from tests.integration.agent.recipes.conftest import NotedApp
from tests.integration.agent.recipes.kuma_on_mariadb import KumaOnMariadb
from tests.matrix.cells import Cell, Note
from tools.servers import MariadbServer, short_directory

TITLE = "Uptime Kuma"
SETS = {
    "1.23, SQLite": KUMA_1,
    "1.23, SQLite, live": KUMA_1_LIVE,
    "2.5, SQLite": KUMA_2,
    "2.5, SQLite, live": KUMA_2_LIVE,
}
ON_MARIADB = ("2.5, MariaDB", "2.5, own MariaDB")
SOURCES = (*SETS, *ON_MARIADB)
TARGETS = ("1.23, SQLite", "2.5, SQLite", *ON_MARIADB)

MakeKuma = Callable[[str], KumaApp]


@pytest.fixture(scope="module")
def make_kuma(mariadb_server: MariadbServer) -> Iterator[MakeKuma]:
    """An app by its name: those on SQLite new each time, as each leaves its data in place."""
    with ExitStack() as opened:
        folder = opened.enter_context(short_directory("matrix"))
        numbers = iter(range(1000))
        own: list[KumaWithServer] = []

        def make(name: str) -> KumaApp:
            place = folder / str(next(numbers))
            place.mkdir()
            if name in SETS:
                return KumaApp(place / "data", NotedApp(), content=SETS[name])
            if name == "2.5, MariaDB":
                database = MariadbApp(mariadb_server, place / "work")
                database.fill()
                return KumaOnMariadb(database, place / "data")
            if not own:
                own.append(KumaWithServer(folder / "own"))
                opened.enter_context(closing(own[0].server))
            return own[0]

        yield make


def expected_error(source: str, target: str) -> type[ArchiveError] | None:
    """None: it is taken."""
    if (source in ON_MARIADB) != (target in ON_MARIADB):
        return ArchiveWrongKindError
    return ArchiveIncompatibleError if source.startswith("2") and target.startswith("1") else None


def change(kuma: KumaApp) -> None:
    """So that equal content afterwards is the archive's and not its own."""
    (kuma.directory / "upload" / "other.png").write_bytes(b"another logo")


@pytest.mark.parametrize("target_name", TARGETS)
@pytest.mark.parametrize("source_name", SOURCES)
async def test_content_is_equal_or_refused_before_anything_changed(
    source_name: str, target_name: str, make_kuma: MakeKuma, note: Note
) -> None:
    source = make_kuma(source_name)
    exported = await source.export("tar.zst")
    assert exported.fingerprint is not None
    target = make_kuma(target_name)
    change(target)
    before, record = await target.fingerprint(), MemoryRecord()

    if error := expected_error(source_name, target_name):
        with pytest.raises(error) as refusal:
            await target.stage(exported.content, record)

        await target.recipe.discard(record)
        assert before.differences(await target.fingerprint()) == []
        outcome = refusal.value.reason
    else:
        record = await target.import_(exported.content)
        await target.recipe.discard(record)

        assert exported.fingerprint.differences(await target.fingerprint()) == []
        assert before.differences(await target.fingerprint()) != []
        outcome = "equal"
    assert not (target.directory / ".mathison-data").exists()
    (target.directory / "upload" / "other.png").unlink(missing_ok=True)
    note(Cell(TITLE, source_name, target_name, outcome))
