"""`mathison verify` on exports of Uptime Kuma on SQLite and on MariaDB."""

from __future__ import annotations

import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path

import pytest

from agent.engines.replay.__main__ import replay
from agent.engines.replay.request import Request
from common.errors import ArchiveIncompatibleError
from common.seals import FingerprintFinder
from tests.fixtures.kuma_apps import KUMA_1_LIVE, KUMA_2, KumaApp
from tests.fixtures.mariadb_apps import MariadbApp
from tests.integration.agent.recipes.conftest import NotedApp
from tests.integration.agent.recipes.kuma_on_mariadb import KumaOnMariadb
from tests.integration.cli.test_verify import verify

PROGRAMS = "MATHISON_MARIADB_BIN"


async def test_an_export_on_sqlite_is_proven_by_unpacking_it(tmp_path: Path) -> None:
    exported = await KumaApp(tmp_path / "kuma", NotedApp(), content=KUMA_1_LIVE).export("tar.zst")
    (tmp_path / "status.tar.zst").write_bytes(exported.content)

    code, document = verify(tmp_path / "status.tar.zst", is_forked=False)

    assert (code, document.get("differences")) == (0, []), document
    assert exported.fingerprint is not None
    assert {"table monitor", "below 'upload'"} <= exported.fingerprint.parts.keys()


async def test_an_export_is_proven_whatever_became_of_the_files_meanwhile(tmp_path: Path) -> None:
    kuma = KumaApp(tmp_path / "kuma", NotedApp(), content=KUMA_2)
    upload, file = kuma.directory / "upload", tmp_path / "status.tar"
    (upload / "d").mkdir()
    (upload / "second name").hardlink_to(upload / "logo1.png")
    with closing(sqlite3.connect(upload / "some.db", isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE rows (value)")

        def change() -> None:
            (upload / "logo1.png").write_bytes(b"another logo")
            (upload / "d" / "new.png").write_bytes(b"new")
            database.execute("INSERT INTO rows VALUES (1)")

        kuma.meanwhile = change
        exported = await kuma.export()
        assert exported.fingerprint is not None
        assert exported.fingerprint.differences(await kuma.fingerprint()) == []
    file.write_bytes(exported.content)

    code, document = verify(file)

    assert (code, document.get("differences")) == (0, []), document


async def test_an_export_on_mariadb_is_proven_by_loading_its_dump(
    shop: MariadbApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.fill()
    exported = await KumaOnMariadb(shop, tmp_path / "kuma").export("tar")
    file = tmp_path / "status.tar"
    file.write_bytes(exported.content)
    request = Request(file=str(file), scheme="uptime-kuma-mariadb/3")
    monkeypatch.setenv(PROGRAMS, str(shop.server.install.bin_directory))

    found = await replay(request)

    finder = FingerprintFinder()
    finder.add(exported.content)
    told = finder.fingerprint()
    assert told is not None
    assert told.differences(found.fingerprint) == []
    assert found.engine == "MariaDB 10.11"
    assert {"table monitor", "below 'upload'"} <= told.parts.keys()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("status.tar", exported.content)
    assert told.differences((await replay(request)).fingerprint) == []
    monkeypatch.setattr("agent.engines.mariadb.own.mariadb._SHARES", ())
    with pytest.raises(ArchiveIncompatibleError, match="programs of a MariaDB server are needed"):
        await replay(request)
