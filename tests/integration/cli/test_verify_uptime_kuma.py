"""`mathison verify` on exports of Uptime Kuma on SQLite and on MariaDB."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.engines.replay.__main__ import replay
from agent.engines.replay.request import Request
from common.errors import ArchiveIncompatibleError
from common.seals import FingerprintFinder
from tests.fixtures.kuma_apps import KUMA_1_LIVE, KumaApp
from tests.fixtures.mariadb_apps import MariadbApp
from tests.integration.agent.recipes.conftest import NotedApp
from tests.integration.agent.recipes.kuma_on_mariadb import KumaOnMariadb
from tests.integration.cli.test_verify import verify

PROGRAMS = "MATHISON_MARIADB_BIN"


async def test_an_export_on_sqlite_is_proven_by_unpacking_it(tmp_path: Path) -> None:
    exported = await KumaApp(tmp_path / "kuma", NotedApp(), content=KUMA_1_LIVE).export("tar.zst")
    (tmp_path / "status.tar.zst").write_bytes(exported.content)

    code, document = verify(tmp_path / "status.tar.zst")

    assert (code, document.get("differences")) == (0, []), document
    assert exported.fingerprint is not None
    assert {"table monitor", "files upload"} <= exported.fingerprint.parts.keys()


async def test_an_export_on_mariadb_is_proven_by_loading_its_dump(
    shop: MariadbApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.fill()
    exported = await KumaOnMariadb(shop, tmp_path / "kuma").export("tar")
    file = tmp_path / "status.tar"
    file.write_bytes(exported.content)
    request = Request(file=str(file), scheme="uptime-kuma-mariadb/1")
    monkeypatch.setenv(PROGRAMS, str(shop.server.install.bin_directory))

    found = await replay(request)

    finder = FingerprintFinder()
    finder.add(exported.content)
    told = finder.fingerprint()
    assert told is not None
    assert told.differences(found.fingerprint) == []
    assert found.engine == "MariaDB 10.11"
    assert {"table monitor", "files upload"} <= told.parts.keys()
    monkeypatch.setattr("agent.engines.mariadb.own_server._SHARES", ())
    with pytest.raises(ArchiveIncompatibleError, match="programs of a MariaDB server are needed"):
        await replay(request)
