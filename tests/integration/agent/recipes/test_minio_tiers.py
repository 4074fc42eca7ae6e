"""Content that lifecycle rules have moved to a remote tier is not in an archive of the drive, and that is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.engines.minio.drive.tiers import Place, Tiered
from agent.engines.minio.server import tier_reading
from agent.engines.replay.minio import replay
from agent.engines.replay.request import Request
from common.errors import ArchiveDamagedError, ArchiveIncompatibleError
from tests.fakes.imports import MemoryRecord
from tests.fixtures.minio_archives import Change, made_up, resealed
from tests.fixtures.minio_data import put, view
from tests.fixtures.minio_servers import StartMinio, client_of
from tests.fixtures.minio_tiers import CONTENTS, TIER, TIERED_BYTES, delete_in_tier, fill_tiered, read
from tests.fixtures.variants import variants
from tests.fixtures.verifying import verify
from tests.integration.agent.recipes.minio_apps import MinioApp
from tools.servers import MinioServer

WHOLE = {**CONTENTS, "here": b"on the drive"}
LACKING = f"The content of 3 versions ({TIERED_BYTES:,} bytes) is not in "


@pytest.fixture
def cold(start_minio: StartMinio) -> MinioServer:
    """The tier's own server."""
    return start_minio(user="cold")


@pytest.fixture
async def source(cold: MinioServer, start_minio: StartMinio) -> MinioServer:
    server = start_minio()
    await fill_tiered(server, cold)
    assert await read(server) == WHOLE
    return server


async def test_an_archive_says_what_of_it_lies_in_a_tier_and_counts_no_bytes_of_that(
    source: MinioServer, tmp_path: Path
) -> None:
    app = MinioApp(source, tmp_path)
    exported = await app.export()
    file = tmp_path / "archive.tar"
    file.write_bytes(exported.file)
    assert exported.fingerprint is not None

    exit_code, said = verify(file)
    replayed = await replay(Request(file=str(file), scheme=exported.fingerprint.scheme))

    [warning] = [text for text in exported.warnings if text.startswith(LACKING)]
    assert f"the tier {TIER!r} ('files/tiered/0', 'files/tiered/1', 'files/tiered/2')" in warning
    assert (exported.counts["versions"], exported.counts["bytes"]) == (4, len(WHOLE["here"]))
    assert exit_code == 0
    assert f"Not proven: {LACKING}this archive" in " ".join(said.split())
    assert "could not be compared" not in " ".join(said.split())
    assert exported.fingerprint.parts["content in a tier, not here"] == f"3 versions, {TIERED_BYTES} bytes"
    assert replayed.fingerprint == exported.fingerprint == await app.recipe.fingerprint(app.progress)


async def test_an_archive_without_content_that_lies_in_a_tier_is_refused(
    source: MinioServer, start_minio: StartMinio, tmp_path: Path
) -> None:
    target = start_minio(user="other")
    exported = await MinioApp(source, tmp_path / "source").export(secrets="clear")
    app, record = MinioApp(target, tmp_path / "target"), MemoryRecord()

    with pytest.raises(ArchiveIncompatibleError, match="The content of 3 versions") as refusal:
        await app.stage(exported.file, record)

    await app.recipe.discard(record)
    assert "files/tiered/0" in refusal.value.text
    assert "Nothing was changed" in refusal.value.text
    assert "?format=s3" in refusal.value.next_step
    assert "tiered=share" in refusal.value.next_step
    assert (await view(target), app.leftovers()) == ({}, [])


async def test_an_archive_that_has_a_server_delete_in_a_tier_is_refused(
    source: MinioServer, cold: MinioServer, start_minio: StartMinio, tmp_path: Path
) -> None:
    target = start_minio(user="other")
    cold.stop()
    async with client_of(source) as client:
        for key in CONTENTS:
            await client.call("DELETE", "files", key)
    exported = await MinioApp(source, tmp_path / "source").export(secrets="clear")
    app, record = MinioApp(target, tmp_path / "target"), MemoryRecord()

    with pytest.raises(ArchiveIncompatibleError, match=f"delete 3 objects in the tier '{TIER}'") as refusal:
        await app.stage(exported.file, record, bucket="files")
    await app.recipe.discard(record)
    shared, preview = await app.stage(exported.file, tiered="share")
    await app.recipe.discard(shared)

    assert "'files/tiered/0'" in refusal.value.text
    assert "tiered=share" in refusal.value.next_step
    for warnings in (exported.warnings, preview.warnings):
        assert [text for text in warnings if "delete 3 objects in the tier" in text]
    assert (await view(target), app.leftovers()) == ({}, [])


async def test_a_name_in_another_case_hides_no_content_that_lies_in_a_tier(
    source: MinioServer, start_minio: StartMinio, tmp_path: Path
) -> None:
    target = start_minio(user="other")
    status = {"x-minio-internal-transition-status": b"complete", "x-minio-internal-transition-tier": TIER.encode()}
    name = "files/here/xl.meta"
    exported = await MinioApp(source, tmp_path / "source").export(secrets="clear")
    twice = made_up(name, MetaSys={**status, "X-Minio-Internal-transition-status": b"none"}, header={4: 2})
    once = made_up(name, MetaSys=status, header={4: 2})
    app, record = MinioApp(target, tmp_path / "target"), MemoryRecord()

    def change(altered: Change) -> bytes:
        """Nothing in it lies in a tier but that object."""
        return resealed(
            exported.file,
            lambda name, content: None if name.startswith("files/tiered/") else altered(name, content),
            keeps_fingerprint=False,
        )

    with pytest.raises(ArchiveDamagedError, match="no MinIO with a single drive writes: 'files/here'"):
        await app.stage(change(twice), record, bucket="files")
    await app.recipe.discard(record)
    with pytest.raises(ArchiveIncompatibleError, match="The content of 1 version "):
        await app.stage(change(once), record, bucket="files")
    await app.recipe.discard(record)

    assert (await view(target), app.leftovers()) == ({}, [])


async def test_a_portable_archive_holds_it(source: MinioServer, start_minio: StartMinio, tmp_path: Path) -> None:
    target = start_minio(user="other")
    exported = await MinioApp(source, tmp_path / "source").export("s3")

    await MinioApp(target, tmp_path / "target").import_file(exported.file, settings="drop")
    source.stop()

    assert exported.counts["bytes"] == TIERED_BYTES + len(WHOLE["here"])
    assert not [text for text in exported.warnings if "not in" in text]
    assert await read(target) == WHOLE


async def test_who_shares_a_tier_is_told_and_reads_its_content(
    source: MinioServer, start_minio: StartMinio, tmp_path: Path
) -> None:
    target = start_minio(user="other")
    exported = await MinioApp(source, tmp_path / "source").export(secrets="clear")
    app = MinioApp(target, tmp_path / "target")

    record, preview = await app.stage(exported.file, tiered="share")
    told = await app.recipe.restore(record, app.progress)

    assert not told
    [warning] = [text for text in preview.warnings if text.startswith(f"{LACKING}the archive")]
    assert "for all of them" in warning
    assert preview.counts_after["bytes"] == len(WHOLE["here"])
    assert await read(target) == WHOLE == await read(source)
    assert not await app.recipe.undo(record, app.progress)
    assert (await view(target), app.leftovers()) == ({}, [])
    assert await read(source) == WHOLE


@variants(("option", "value"), [("users", "keep"), ("bucket", "files")])
async def test_a_server_without_the_tier_gets_its_previous_data_back(
    option: str, value: str, source: MinioServer, start_minio: StartMinio, tmp_path: Path
) -> None:
    target = start_minio(user="other")
    exported = await MinioApp(source, tmp_path / "source").export(secrets="clear")
    app = MinioApp(target, tmp_path / "target")
    record = MemoryRecord()
    await app.stage(exported.file, record, tiered="share", **{option: value})

    with pytest.raises(ArchiveIncompatibleError, match="remote tier was not found") as refusal:
        await app.recipe.restore(record, app.progress)

    assert "tier of the same name" in refusal.value.next_step
    await app.recipe.discard(record)
    assert (await view(target), app.leftovers()) == ({}, [])


async def test_an_undo_brings_back_data_whose_content_lies_in_a_tier(
    source: MinioServer, start_minio: StartMinio, tmp_path: Path
) -> None:
    other = start_minio(user="other")
    async with client_of(other) as client:
        await client.call("PUT", "files")
        await put(client, "files", "new", b"new")
    exported = await MinioApp(other, tmp_path / "other").export(secrets="clear")
    app = MinioApp(source, tmp_path / "source")

    record = await app.import_file(exported.file)
    async with client_of(source) as client:
        await client.call("DELETE", "files", "new")
    told = await app.recipe.undo(record, app.progress)

    assert not told
    assert await read(source) == WHOLE


@variants("only", ["", "files"])
async def test_an_undo_says_whose_content_was_deleted_from_the_tier_meanwhile(
    only: str, source: MinioServer, cold: MinioServer, tmp_path: Path
) -> None:
    app = MinioApp(source, tmp_path)
    exported = await app.export(secrets="clear")
    record, _ = await app.stage(exported.file, None, tiered="share", **({"bucket": only} if only else {}))

    assert not await app.recipe.restore(record, app.progress)
    await delete_in_tier(source, cold, "tiered/0", "tiered/2")
    told = await app.recipe.undo(record, app.progress)

    assert told is not None
    assert told.startswith(f"The content of 2 versions is gone from the tier {TIER!r}, or cannot be read there; only")
    assert "('files/tiered/0', 'files/tiered/2'). MinIO refused" in told
    assert "looked" not in told
    async with client_of(source) as client:
        assert (await client.call("GET", "files", "tiered/1")).body == CONTENTS["tiered/1"]


async def test_an_undo_says_what_it_did_not_look_at(
    source: MinioServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = MinioApp(source, tmp_path)
    record = await app.import_file((await app.export(secrets="clear")).file, tiered="share")

    monkeypatch.setattr(tier_reading, "_LOOK_SECONDS", -1.0)
    told = await app.recipe.undo(record, app.progress)

    assert told == "Whether the content of 3 versions is in the tier was not looked at."
    assert await read(source) == WHOLE


async def test_a_restore_says_whose_content_is_gone_from_the_tier_since_the_export(
    source: MinioServer, cold: MinioServer, start_minio: StartMinio, tmp_path: Path
) -> None:
    exported = await MinioApp(source, tmp_path / "source").export(secrets="clear")
    await delete_in_tier(source, cold, *CONTENTS)
    app = MinioApp(start_minio(user="other"), tmp_path / "target")

    record, _ = await app.stage(exported.file, tiered="share")
    told = await app.recipe.restore(record, app.progress)

    assert told is not None
    assert told.startswith(f"The content of 3 versions is gone from the tier {TIER!r}")


async def test_a_tier_that_is_away_is_told_and_a_version_that_is_gone_itself_is_not(
    source: MinioServer, cold: MinioServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tier_reading, "_TIERS_SECONDS", 0.0)
    cold.stop()
    here = Place("files", "tiered/0", "null", 1)
    gone = Place("files", "never", "null", 1)

    async with client_of(source) as client:
        told = [
            await tier_reading.look(client, Tiered(versions=1, tiers=[repr(TIER)], places=[place]))
            for place in (here, gone)
        ]

    assert "The content of 1 version is gone from the tier 'COLD', or cannot be read there" in told[0]
    assert "Remote backend is unreachable" in told[0]
    assert told[1] == ""
