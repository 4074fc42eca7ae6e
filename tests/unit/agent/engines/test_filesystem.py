"""Renames that replace nothing, and deleting without going astray."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.archives.members import MAX_DEPTH
from agent.engines import filesystem
from agent.engines.filesystem import filesystem_type, mounts_below, remove_tree, rename_without_replacing
from tests.fixtures.archives import descriptors_left


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


def test_a_tree_is_deleted_and_no_link_is_followed(here: int, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    deep = tmp_path.joinpath("doomed", *["d"] * 300)
    deep.mkdir(parents=True)
    (deep / "file").touch()
    (tmp_path / "doomed" / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "doomed" / "closed").mkdir()
    (tmp_path / "doomed" / "closed" / "file").touch()
    (tmp_path / "doomed" / "closed").chmod(0)
    (tmp_path / "link").symlink_to("kept")

    remove_tree("doomed", parent=here)
    remove_tree("link", parent=here)
    remove_tree("never there", parent=here)

    assert os.listdir(tmp_path) == ["kept"]
    assert os.listdir(tmp_path / "kept") == ["file"]


def test_the_deepest_tree_is_deleted_with_a_descriptor_a_level(tmp_path: Path, here: int) -> None:
    tmp_path.joinpath("doomed", *["d"] * MAX_DEPTH).mkdir(parents=True)

    with descriptors_left(MAX_DEPTH + 10):
        remove_tree("doomed", parent=here)

    assert os.listdir(tmp_path) == []


def test_the_kernels_own_directories_are_mounts_below_the_root() -> None:
    assert "/proc" in mounts_below(Path("/"))
    assert filesystem_type(Path("/proc")) == "proc"


def test_an_ordinary_directory_has_no_mounts_below(tmp_path: Path) -> None:
    assert mounts_below(tmp_path) == []
