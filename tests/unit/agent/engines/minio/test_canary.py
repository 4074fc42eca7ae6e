"""What is shown to a server is copied into its bucket, wherever that bucket's name has come to lead."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from agent.engines.minio.server import canary


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    """One object of an upload."""
    data = tmp_path / "staged" / "0b1fcb9b-6a3c-4d7a-9c3c-0123456789ab"
    data.mkdir(parents=True)
    (data.parent / "xl.meta").write_text("XL2")
    (data / "part.1").write_text("content")
    (data.parent / "another object").mkdir()
    return data.parent


def test_an_object_is_copied_for_the_server_without_what_lies_below_it(staged: Path, tmp_path: Path) -> None:
    drive = tmp_path / "drive"
    (drive / "bucket").mkdir(parents=True)

    canary._copy(staged, drive, "bucket/canary-0")

    copied = drive / "bucket" / "canary-0"
    assert {str(path.relative_to(copied)) for path in copied.rglob("*")} == {
        "xl.meta",
        "0b1fcb9b-6a3c-4d7a-9c3c-0123456789ab",
        "0b1fcb9b-6a3c-4d7a-9c3c-0123456789ab/part.1",
    }
    assert (copied / "xl.meta").read_text() == "XL2"
    assert {stat.S_IMODE(path.stat().st_mode) for path in (copied, *copied.rglob("*"))} == {0o755, 0o644}
    canary._remove_copies(drive, "bucket")
    assert list((drive / "bucket").iterdir()) == []


def test_nothing_is_made_or_deleted_where_a_server_lets_its_bucket_lead(staged: Path, tmp_path: Path) -> None:
    drive, elsewhere = tmp_path / "drive", tmp_path / "elsewhere"
    drive.mkdir()
    (elsewhere / "canary-1").mkdir(parents=True)
    elsewhere.chmod(0o700)
    (drive / "bucket").symlink_to(elsewhere)

    with pytest.raises(OSError, match="Not a directory"):
        canary._copy(staged, drive, "bucket/canary-0")
    canary._remove_copies(drive, "bucket")

    assert os.listdir(elsewhere) == ["canary-1"]
