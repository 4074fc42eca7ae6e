"""Deleting without going astray."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.archives.members import MAX_DEPTH
from agent.engines.subtrees import remove_tree
from tests.fixtures.archives import descriptors_left


@pytest.fixture
def here(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


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
