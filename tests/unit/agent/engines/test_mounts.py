"""What is mounted where."""

from __future__ import annotations

from pathlib import Path

from agent.engines.mounts import filesystem_type, mounts_below


def test_the_kernels_own_directories_are_mounts_below_the_root() -> None:
    assert "/proc" in mounts_below(Path("/"))
    assert filesystem_type(Path("/proc")) == "proc"


def test_an_ordinary_directory_has_no_mounts_below(tmp_path: Path) -> None:
    assert mounts_below(tmp_path) == []
