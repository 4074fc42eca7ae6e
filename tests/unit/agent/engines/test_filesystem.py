"""Renames that replace nothing."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.engines import filesystem
from agent.engines.filesystem import rename_without_replacing


@pytest.fixture
def here(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


class LibcWithoutRename:
    """As on NFS."""

    def renameat2(self, *arguments: object) -> int:
        ctypes.set_errno(errno.EINVAL)
        return -1


@pytest.mark.parametrize("is_known", [True, False], ids=["kernel", "fallback"])
def test_a_rename_never_replaces(is_known: bool, here: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not is_known:
        monkeypatch.setattr(filesystem, "_libc", LibcWithoutRename())
    (tmp_path / "d").mkdir()
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").write_text("2")
    (tmp_path / "d" / "b").symlink_to("nowhere")
    target = os.open(tmp_path / "d", os.O_RDONLY)

    rename_without_replacing("a", source=here, target=target)
    with pytest.raises(FileExistsError):
        rename_without_replacing("b", source=here, target=target)
    with pytest.raises(FileNotFoundError):
        rename_without_replacing("c", source=here, target=target)

    os.close(target)
    assert (tmp_path / "d" / "a").read_text() == "1"
    assert (tmp_path / "b").read_text() == "2"
