"""Any client that may put an object chooses its name: those that mean something on MinIO's drive go out and in too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.fixtures.minio_data import add_user, put, users, view
from tests.fixtures.minio_servers import StartMinio, client_of
from tests.fixtures.variants import variants
from tests.integration.agent.recipes.minio_apps import MinioApp
from tools.servers import MinioServer

UUID = "11111111-2222-3333-4444-555555555555"
KEYS = (
    *("xl.meta", "d/xl.meta", "e/xl.meta/f", "xl.meta/", "xl.meta.bkp", "object", "object.d/part.1", "part.1"),
    *(UUID, f"u/{UUID}/part.1", f"v/{UUID}", "null", "n/null", "x__XLDIR__", "dir__XLDIR__/", "legacy/xl.json"),
    "/".join("k" * 512),
    *(".minio.sys", ".metacache", "m/.metacache/x", ".usage.json", ".heal", ".mathison-data/x", "lost+found/x"),
)
BELOW_OBJECTS = (".minio.sys/buckets/x", f"object/{UUID}/part.1", f"object/{UUID}", "object/q/part.1", "part.1/xl.json")
HIDDEN_IN_DIRECTORIES = ("a/__XLDIR__", "b/__XLDIR__/c", "q__XLDIR__/r")
"""No listing of MinIO's shows them: what ends with this is the directory of a key with a slash at its end."""

_VERIFY = (sys.executable, "-m", "cli", "verify")


async def _fill(server: MinioServer) -> None:
    async with client_of(server) as client:
        await client.call("PUT", "names")
        for key in (*KEYS, *BELOW_OBJECTS, *HIDDEN_IN_DIRECTORIES):
            await put(client, "names", key, f"content of {key}".encode() * (20_000 if "part.1" in key else 1))
        for name in ("xl.meta", ".heal", ".usage.json"):
            await add_user(client, name, "a-secret-key")


async def _contents(server: MinioServer) -> dict[str, bytes]:
    keys = (*KEYS, *BELOW_OBJECTS, *HIDDEN_IN_DIRECTORIES)
    async with client_of(server) as client:
        return {key: (await client.call("GET", "names", key)).body for key in keys}


async def test_names_that_mean_something_on_the_drive_go_out_and_in_like_others(
    start_minio: StartMinio, tmp_path: Path
) -> None:
    source, target = start_minio(), start_minio()
    await _fill(source)
    seen, contents = await view(source), await _contents(source)
    out, into = MinioApp(source, tmp_path / "source"), MinioApp(target, tmp_path / "target")

    exported = await out.export(secrets="clear")
    record = await into.import_file(exported.file)

    assert (await view(target), await _contents(target)) == (seen, contents)
    assert await users(target) == [".heal", ".usage.json", "xl.meta"]
    (tmp_path / "drive.tar").write_bytes(exported.file)
    subprocess.run([*_VERIFY, tmp_path / "drive.tar"], check=True)
    assert await into.recipe.fingerprint(into.progress) == exported.fingerprint
    assert exported.counts["objects"] == len(contents)
    assert any(warning.startswith(f"{len(BELOW_OBJECTS)} objects lie below") for warning in exported.warnings)
    await into.recipe.undo(record, into.progress)
    assert await view(target) == {}
    assert [*out.leftovers(), *into.leftovers()] == []


async def test_what_a_listing_shows_of_them_goes_out_and_in_through_s3_too_and_the_rest_is_counted(
    start_minio: StartMinio, tmp_path: Path
) -> None:
    source, target = start_minio(), start_minio()
    await _fill(source)
    async with client_of(source) as client:
        await put(client, "names", "__XLDIR__", b"listed as //")
    seen = await view(source)
    into = MinioApp(target, tmp_path / "target")

    exported = await MinioApp(source, tmp_path / "source").export("s3")
    record = await into.import_file(exported.file)

    (tmp_path / "objects.tar").write_bytes(exported.file)
    subprocess.run([*_VERIFY, tmp_path / "objects.tar"], check=True)
    found = await view(target)
    assert found["names"] | {"created": ""} == seen["names"] | {"created": ""}
    assert ("//", "null") in found["names"]
    assert any(warning.startswith(f"{len(BELOW_OBJECTS)} objects lie below") for warning in exported.warnings)
    told = f"{len(HIDDEN_IN_DIRECTORIES)} objects have `__XLDIR__` within the key"
    assert any(warning.startswith(told) for warning in exported.warnings)
    await into.recipe.undo(record, into.progress)
    assert await view(target) == {}


@variants("key", ["d", "d/xl.meta"], kept=["d/xl.meta"])
async def test_a_preview_compares_an_object_with_one_whose_key_ends_with_the_name_of_its_file(
    key: str, start_minio: StartMinio, tmp_path: Path
) -> None:
    [other] = {"d", "d/xl.meta"} - {key}
    app = MinioApp(start_minio(), tmp_path)
    async with client_of(app.server) as client:
        await client.call("PUT", "names")
        await put(client, "names", key, b"exported")
        exported = await app.export()
        await client.call("DELETE", "names", key)
        await put(client, "names", other, b"there")

    record, preview = await app.stage(exported.file)
    await app.recipe.restore(record, app.progress)

    assert (preview.items["objects"].added, preview.items["objects"].removed) == (1, 1)
    async with client_of(app.server) as client:
        assert (await client.call("GET", "names", key)).body == b"exported"
        await app.recipe.undo(record, app.progress)
        assert (await client.call("GET", "names", other)).body == b"there"
