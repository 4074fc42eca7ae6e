"""What a preview tells of two trees: told by name, size and time, and by content where that is cheap."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from agent.engines import comparing
from agent.engines.comparing import compare_trees
from agent.recipes.base import ItemChanges

AT_NS = 1_700_000_000_123_456_789
LARGE = bytes(70_000)


def write(path: Path, content: bytes, *, at_ns: int = AT_NS, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)
    os.utime(path, ns=(at_ns, at_ns))


def link(path: Path, target: str) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def make_database(path: Path, *names: str) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE apps (name text)")
        database.executemany("INSERT INTO apps VALUES (?)", [(name,) for name in names])
        database.commit()


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    now, after = tmp_path / "now", tmp_path / "after"
    now.mkdir()
    after.mkdir()
    return now, after


ONE_SECOND_NS = 1_000_000_000
WAYS: dict[str, tuple[Callable[[Path], None], Callable[[Path], None], ItemChanges]] = {
    "only after": (lambda now: None, lambda after: write(after / "d/a", b"a"), ItemChanges(added=1)),
    "only now": (lambda now: write(now / "d/a", b"a"), lambda after: None, ItemChanges(removed=1)),
    "size and time": (
        lambda now: write(now / "d/a", LARGE),
        lambda after: write(after / "d/a", LARGE),
        ItemChanges(same=1),
    ),
    "a time in whole seconds": (
        lambda now: write(now / "a", LARGE),
        lambda after: write(after / "a", LARGE, at_ns=AT_NS // ONE_SECOND_NS * ONE_SECOND_NS),
        ItemChanges(same=1),
    ),
    "another size": (
        lambda now: write(now / "a", LARGE),
        lambda after: write(after / "a", LARGE + b"."),
        ItemChanges(changed=1),
    ),
    "other permissions": (
        lambda now: write(now / "a", LARGE, mode=0o600),
        lambda after: write(after / "a", LARGE, mode=0o644),
        ItemChanges(changed=1),
    ),
    "small, another time, the same content": (
        lambda now: write(now / "a", b"abc"),
        lambda after: write(after / "a", b"abc", at_ns=5),
        ItemChanges(same=1),
    ),
    "small, another time, other content": (
        lambda now: write(now / "a", b"abc"),
        lambda after: write(after / "a", b"abd", at_ns=5),
        ItemChanges(changed=1),
    ),
    "large, another time": (
        lambda now: write(now / "a", LARGE),
        lambda after: write(after / "a", LARGE, at_ns=5),
        ItemChanges(not_compared=1),
    ),
}


@pytest.mark.parametrize("name", WAYS)
async def test_a_file_is_told_by_name_size_time_and_cheap_content(name: str, trees: tuple[Path, Path]) -> None:
    now, after = trees
    fill_now, fill_after, expected = WAYS[name]
    fill_now(now)
    fill_after(after)

    compared = await compare_trees(now, after)

    assert compared.items == {"files": expected}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
async def test_a_file_that_gets_another_owner_is_changed(trees: tuple[Path, Path]) -> None:
    now, after = trees
    for tree in trees:
        write(tree / "a", LARGE)
    os.chown(after / "a", 4242, -1)

    assert (await compare_trees(now, after)).items == {"files": ItemChanges(changed=1)}


async def test_a_link_is_told_by_its_target_and_a_file_that_becomes_one_is_both(trees: tuple[Path, Path]) -> None:
    now, after = trees
    for tree in trees:
        link(tree / "same", "target")
        link(tree / "changed", tree.name)
    write(now / "becomes", b"a file")
    link(after / "becomes", "target")

    compared = await compare_trees(now, after)

    assert compared.items == {
        "files": ItemChanges(removed=1),
        "links": ItemChanges(added=1, changed=1, same=1),
    }


async def test_a_directory_that_is_a_link_is_not_followed(trees: tuple[Path, Path], tmp_path: Path) -> None:
    now, after = trees
    write(tmp_path / "elsewhere/a", b"a")
    link(now / "d", str(tmp_path / "elsewhere"))
    write(after / "d/a", b"a")

    compared = await compare_trees(now, after)

    assert compared.items == {"files": ItemChanges(added=1), "links": ItemChanges(removed=1)}


async def test_databases_are_told_by_their_tables_and_side_files_belong_to_them(trees: tuple[Path, Path]) -> None:
    now, after = trees
    for name, content in {"same.db": ("a",), "changed.db": ("a", "b"), "gone.db": ("a",)}.items():
        make_database(now / name, *content)
    shutil.copy(now / "same.db", now / "huge.db")
    os.truncate(now / "huge.db", comparing._DATABASE_BYTES + 4096)
    with closing(sqlite3.connect(now / "same.db")) as database:
        database.execute("INSERT INTO apps VALUES ('b')")
        database.execute("DELETE FROM apps WHERE name = 'b'")
        database.commit()
        shutil.copy(now / "same.db", after / "same.db")
        make_database(after / "changed.db", "a", "c")
        make_database(after / "new.db", "a")
        shutil.copy(now / "huge.db", after / "huge.db")
        assert (now / "same.db-wal").exists()

        compared = await compare_trees(now, after)

    assert compared.items == {"databases": ItemChanges(added=1, removed=1, changed=1, same=1, not_compared=1)}


async def test_what_could_not_be_counted_in_time_is_left_out(
    trees: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    now, after = trees
    write(now / "a", b"a")
    write(after / "a", b"a")
    monkeypatch.setattr(comparing, "_SECONDS", -1.0)

    compared = await compare_trees(now, after)

    assert compared.items == {}
    assert not compared.now.is_complete
