"""What holds secrets in an archive is closed, and opens with the passphrase only, under its own name only."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.engines.minio.trees import sealing
from agent.engines.minio.trees.sealing import Seal, seal_files
from common.errors import ArchiveDamagedError, ArchiveIncompatibleError

PATH = ".minio.sys/config/iam/users/alice/identity.json/xl.meta"
SECRET = b"the secret key of alice"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "ITERATIONS", 1)


def open_sealed(tree: Path, passphrases: list[str]) -> int:
    root = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return sealing.open_sealed(root, passphrases)
    finally:
        os.close(root)


def _tree(root: Path, content: bytes, path: str = PATH) -> Path:
    (root / path).parent.mkdir(parents=True)
    (root / path).write_bytes(content)
    return root


def test_a_sealed_file_does_not_show_what_is_in_it_and_opens_with_the_passphrase(tmp_path: Path) -> None:
    sealed = Seal("one").close(SECRET, PATH)

    opened = open_sealed(_tree(tmp_path, sealed), ["another", "one"])

    assert SECRET not in sealed
    assert opened == 1
    assert (tmp_path / PATH).read_bytes() == SECRET


def test_files_that_are_not_sealed_stay_as_they_are(tmp_path: Path) -> None:
    content = b"XL2 " + bytes(100)

    assert open_sealed(_tree(tmp_path, content), ["one"]) == 0
    assert (tmp_path / PATH).read_bytes() == content


def test_without_the_passphrase_nothing_opens_and_the_way_round_is_named(tmp_path: Path) -> None:
    tree = _tree(tmp_path, Seal("one").close(SECRET, PATH))

    with pytest.raises(ArchiveIncompatibleError, match="sealed") as refusal:
        open_sealed(tree, ["two", "three"])

    assert "users=keep" in refusal.value.next_step


@pytest.mark.parametrize("change", ["content", "place", "salt"])
def test_a_sealed_file_that_was_changed_is_noticed(change: str, tmp_path: Path) -> None:
    seal = Seal("one")
    tree = _tree(tmp_path, seal.close(SECRET, PATH))
    second = PATH.replace("alice", "bob")
    good = seal.close(SECRET, second)
    bad = {
        "content": good[:-1] + bytes([good[-1] ^ 1]),
        "place": seal.close(SECRET, PATH.replace("alice", "carol")),
        "salt": Seal("one").close(SECRET, second),
    }
    _tree(tree, bad[change], second)

    with pytest.raises(ArchiveDamagedError, match="bob"):
        open_sealed(tree, ["one"])


def test_only_what_is_the_servers_own_is_opened(tmp_path: Path) -> None:
    sealed = Seal("one").close(SECRET, "bucket/object/part.1")

    assert open_sealed(_tree(tmp_path, sealed, "bucket/object/part.1"), ["one"]) == 0


def test_files_are_sealed_in_place_and_what_they_were_links_of_stays_as_it_is(tmp_path: Path) -> None:
    live = tmp_path / "live"
    live.write_bytes(SECRET)
    tree = _tree(tmp_path / "tree", b"")
    (tree / PATH).unlink()
    (tree / PATH).hardlink_to(live)
    other = tree / ".minio.sys/buckets/one/.metadata.bin/xl.meta"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"not secret")
    root = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)

    sealed = seal_files(root, "one", [".minio.sys/config"])

    os.close(root)
    assert sealed == 1
    assert live.read_bytes() == SECRET
    assert SECRET not in (tree / PATH).read_bytes()
    assert other.read_bytes() == b"not secret"
    assert open_sealed(tree, ["one"]) == 1
    assert (tree / PATH).read_bytes() == SECRET
