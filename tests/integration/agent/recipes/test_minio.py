"""A MinIO server out and into another: everything arrives, and an undo brings everything back."""

from __future__ import annotations

from pathlib import Path

from tests.fixtures.minio_data import access, fill, fill_otherwise, fill_users, users, view
from tests.fixtures.minio_servers import StartMinio
from tests.integration.agent.recipes.minio_apps import MinioApp


async def test_everything_arrives_at_a_server_with_another_root_and_an_undo_takes_it_back(
    start_minio: StartMinio, tmp_path: Path
) -> None:
    source = start_minio()
    target = start_minio(user="otheradmin", password="otherpass456")
    await fill(source)
    await fill_users(source)
    await fill_otherwise(target)
    wanted, before = await view(source), await view(target)
    rights = await access(source)
    app = MinioApp(target, tmp_path / "b", {"open_files": [str(_file(tmp_path / "theirs", source.password))]})

    exported = await MinioApp(source, tmp_path / "a").export()
    record = await app.import_file(exported.file)

    assert await view(target) == wanted
    assert await access(target) == rights
    assert await users(target) == ["alice", "bob", "off"]
    await app.recipe.undo(record, app.progress)
    assert await view(target) == before
    assert await users(target) == ["local"]
    assert app.leftovers() == []


def _file(path: Path, text: str) -> Path:
    path.write_text(text)
    return path
