"""What is the target's own, and sessions, are left out of what was unpacked, of nothing else, or the import ends."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.archives.extractor_child import Report
from agent.engines.minio.directory import importing
from agent.engines.minio.server.settings import MinioSettings
from agent.engines.tree import StagingArea
from agent.limits import Limits
from tests.fakes.imports import chunked


def test_sessions_that_cannot_be_removed_end_the_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / ".minio.sys/config/iam/sts").mkdir(parents=True)
    monkeypatch.setattr(shutil, "rmtree", refuse)

    with pytest.raises(PermissionError, match="sts"):
        importing._leave_out(tmp_path, keep_users=False)


@pytest.mark.parametrize("file", ["config", "config/iam", "config/iam/users"])
def test_a_drive_without_sessions_needs_none_removed(file: str, tmp_path: Path) -> None:
    path = tmp_path / ".minio.sys" / file
    path.parent.mkdir(parents=True)
    path.write_text("of somebody")

    importing._leave_out(tmp_path, keep_users=False)

    assert path.is_file()


async def test_nothing_is_deleted_where_a_server_lets_lead_what_was_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive, elsewhere, password_file = tmp_path / "drive", tmp_path / "elsewhere", tmp_path / "password"
    password_file.write_text("password")
    for top in (drive / ".minio.sys", elsewhere / "bucket", elsewhere / "of the machine"):
        top.mkdir(parents=True)
    area = StagingArea(drive, "0123456789ab")
    area.create()

    async def unpacked(area: StagingArea, _chunks: AsyncIterator[bytes], _orders: object, *, is_zip: bool) -> Report:
        for name in ("bucket", "another"):
            (area.new / name).mkdir()
        return Report()

    leave_out = importing._leave_out

    def replaced(new: Path, keep_users: bool) -> None:
        # The moment between two steps.
        (drive / ".mathison-data").rename(drive / ".aside")
        area.new.parent.mkdir(parents=True)
        area.new.symlink_to(elsewhere)
        leave_out(new, keep_users)

    monkeypatch.setattr("agent.engines.tree.unpack", unpacked)
    monkeypatch.setattr(importing, "_leave_out", replaced)
    settings = MinioSettings(user="root", password_file=str(password_file), directory=str(drive))
    _, tally = await importing.unpack(
        chunked(b""),
        area,
        settings,
        limits=Limits(),
        work_directory=tmp_path,
        keep_users=True,
        shares_tiers=False,
        only="bucket",
    )

    assert sorted(path.name for path in elsewhere.iterdir()) == ["bucket", "of the machine"]
    assert [path.name for path in (drive / ".aside" / "0123456789ab" / "new").iterdir()] == ["bucket"]
    assert list(tally.buckets) == ["bucket"]
