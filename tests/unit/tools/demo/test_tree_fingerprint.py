from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.demo import volume_content
from tools.demo.tree_fingerprint import tree_fingerprint


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    volume_content.fill(tmp_path, size_megabytes=1, files=20)
    return tmp_path


def test_the_same_folder_has_the_same_fingerprint(tree: Path) -> None:
    assert tree_fingerprint(tree).sha256 == tree_fingerprint(tree).sha256
    assert tree_fingerprint(tree).differences(tree_fingerprint(tree)) == []


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda odd: (odd / "empty").chmod(0o600), id="mode"),
        pytest.param(lambda odd: (odd / "empty").unlink(), id="missing"),
        pytest.param(lambda odd: (odd / "more").touch(), id="more"),
        pytest.param(lambda odd: os.utime(odd / "empty", (1, 1)), id="time"),
        pytest.param(lambda odd: (odd / "sparse").open("r+b").write(b"!"), id="content"),
        pytest.param(lambda odd: (odd / "second name").unlink(), id="hard link"),
        pytest.param(lambda odd: (odd / "link").unlink() or (odd / "link").symlink_to("x"), id="target"),
    ],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_change_is_noticed_and_named(tree: Path, change: Callable[[Path], object]) -> None:
    before = tree_fingerprint(tree)

    change(tree / "odd")

    after = tree_fingerprint(tree)
    assert before.sha256 != after.sha256
    assert any("odd" in difference for difference in before.differences(after))


def test_what_is_not_wanted_is_left_out(tree: Path) -> None:
    found = tree_fingerprint(tree, is_wanted=lambda path: path != "odd")

    assert found.entries
    assert not any(path.startswith("odd") for path in found.entries)
