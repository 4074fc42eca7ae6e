"""What is the target's own, and sessions, are left out of what was unpacked, or the import ends."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from agent.engines.minio import importing


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
