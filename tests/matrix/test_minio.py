"""MinIO's archives, of a drive and portable, into single drives with several KMS keys and into four drives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from common.errors import AppUnavailableError, ArchiveIncompatibleError, ServiceError
from common.fingerprints import Fingerprint
from tests.fakes.imports import MemoryRecord
from tests.fixtures.minio_data import ENABLED, add_user, put
from tests.fixtures.minio_servers import KMS_KEY, OTHER_KMS_KEY, client_of
from tests.integration.agent.recipes.minio_apps import Exported, MinioApp
from tests.matrix.cells import Cell, Note
from tools.servers import MinioServer, minio, short_directory

TITLE = "MinIO"
SINGLE, SAME_KEY, OTHER_KEY, FOUR = "one drive", "one drive, KMS", "one drive, another KMS key", "four drives"
SERVERS = {SINGLE: ("", 1), SAME_KEY: (KMS_KEY, 1), OTHER_KEY: (OTHER_KMS_KEY, 1), FOUR: ("", 4)}
"""The KMS key and the number of drives."""
SOURCES = (("tar", SINGLE), ("tar", SAME_KEY), ("s3", SINGLE), ("s3", SAME_KEY), ("s3", FOUR))
"""With a KMS, some of the objects are encrypted."""


class Servers:
    """Started when they are first asked for; each source is exported once in each format."""

    def __init__(self, opened: ExitStack) -> None:
        self._opened = opened
        self._folder = opened.enter_context(short_directory("matrix"))
        self._sources: dict[str, MinioApp] = {}
        self._targets: dict[str, MinioApp] = {}
        self._archives: dict[tuple[str, str], Exported] = {}

    async def archive(self, format_name: str, source: str) -> Exported:
        if source not in self._sources:
            self._sources[source] = self._start(source, self._folder / f"from {source}")
            await _fill(self._sources[source], encrypts=bool(SERVERS[source][0]))
        if (format_name, source) not in self._archives:
            self._archives[format_name, source] = await self._sources[source].export(format_name)
        return self._archives[format_name, source]

    async def target(self, name: str) -> MinioApp:
        """Each test leaves it as it was."""
        if name not in self._targets:
            self._targets[name] = app = self._start(name, self._folder / f"into {name}")
            async with client_of(app.server) as client:
                await client.call("PUT", "own")
                await put(client, "own", "old", b"old")
        return self._targets[name]

    def _start(self, name: str, place: Path) -> MinioApp:
        key, drives = SERVERS[name]
        environment = {"MINIO_KMS_SECRET_KEY": key} if key else None
        server = self._opened.enter_context(MinioServer(minio(), environment=environment, drives=drives))
        place.mkdir()
        (place / "key").write_text(key)
        return MinioApp(server, place, {"kms_key_file": str(place / "key")} if key else {})


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with ExitStack() as opened:
        yield Servers(opened)


async def _fill(app: MinioApp, *, encrypts: bool) -> None:
    async with client_of(app.server) as client:
        for bucket in ("plain", "versions"):
            await client.call("PUT", bucket)
        await client.call("PUT", "versions", query={"versioning": ""}, body=ENABLED)
        for body in (b"first", b"second" * 200_000):
            await put(client, "versions", "many", body, x_amz_meta_of="the source")
        await client.call("DELETE", "versions", "deleted")
        await put(client, "plain", "a/b", b"plain", content_type="text/plain")
        if encrypts:
            await put(client, "plain", "secret", b"secret" * 50_000, x_amz_server_side_encryption="AES256")
        await add_user(client, "alice", "alice-secret-1")


async def _content(app: MinioApp, format_name: str) -> Fingerprint:
    """The fingerprint that an archive in this format carries, of the server as it is now."""
    if format_name == "tar":
        return await app.recipe.fingerprint(app.progress)
    through_s3 = MinioApp(app.server, app.directory, {**app.settings, "directory": ""})
    return await through_s3.recipe.fingerprint(app.progress)


def expected_error(format_name: str, source: str, target: str) -> type[ServiceError] | None:
    """None: it is taken."""
    if format_name == "tar" and target == FOUR:
        return AppUnavailableError
    is_encrypted, keys = source == SAME_KEY, (SERVERS[source][0], SERVERS[target][0])
    opens = keys[0] == keys[1] if format_name == "tar" else bool(keys[1])
    return ArchiveIncompatibleError if is_encrypted and not opens else None


@pytest.mark.parametrize("target_name", SERVERS)
@pytest.mark.parametrize(("format_name", "source_name"), SOURCES)
async def test_content_is_equal_or_refused_before_anything_changed(
    format_name: str,
    source_name: str,
    target_name: str,
    servers: Servers,
    note: Note,
) -> None:
    exported, target = await servers.archive(format_name, source_name), await servers.target(target_name)
    assert exported.fingerprint is not None
    view = format_name if target_name != FOUR else "s3"
    before, record = await _content(target, view), MemoryRecord()

    if error := expected_error(format_name, source_name, target_name):
        with pytest.raises(error) as refusal:
            await target.stage(exported.file, record)
        await target.recipe.discard(record)
        outcome = refusal.value.reason
    else:
        await target.stage(exported.file, record)
        await target.recipe.restore(record, target.progress)
        # A portable archive comes beside what is there.
        stays = before.parts if format_name == "s3" else {}
        assert (await _content(target, view)).parts == {**exported.fingerprint.parts, **stays}
        assert before.parts != exported.fingerprint.parts
        await target.recipe.undo(record, target.progress)
        outcome = "equal"

    assert before.differences(await _content(target, view)) == []
    assert target.leftovers() == []
    note(Cell(TITLE, f"{format_name} of {source_name}", target_name, outcome))
