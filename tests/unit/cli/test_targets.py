"""The file of an export, from its first byte to its name."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from cli.failures import LocalFileError
from cli.targets import FileTarget, safe_file_name


async def written(path: Path, content: bytes, *, may_replace: bool = False) -> FileTarget:
    target = FileTarget(path, may_replace=may_replace)
    await target.add(content)
    await target.finish()
    return target


async def test_a_file_that_came_into_being_meanwhile_is_not_replaced_and_the_export_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "out"
    target = await written(path, b"export")
    path.write_bytes(b"another's")

    with pytest.raises(LocalFileError, match="the export is whole and lies in"):
        target.keep()
    target.abandon()

    assert path.read_bytes() == b"another's"
    assert target.part.read_bytes() == b"export"


def test_a_folder_that_may_not_be_entered_is_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> os.stat_result:  # the tests may run as root, who may enter any
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "lstat", refuse)

    with pytest.raises(LocalFileError, match="cannot be written: permission denied"):
        FileTarget(tmp_path / "private" / "out", may_replace=False)


async def test_what_was_kept_is_not_abandoned(tmp_path: Path) -> None:
    target = await written(tmp_path / "out", b"export")

    target.keep()
    target.abandon()

    assert [found.name for found in tmp_path.iterdir()] == ["out"]


async def test_without_hard_links_a_file_is_renamed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(source: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", no_links)
    target = await written(tmp_path / "out", b"export")

    target.keep()

    assert (tmp_path / "out").read_bytes() == b"export"


async def test_chunks_of_any_size_arrive_in_order(tmp_path: Path) -> None:
    target = FileTarget(tmp_path / "out", may_replace=False)
    chunks = [bytes([number]) * (number * 20_011) for number in range(1, 40)]

    for chunk in chunks:
        await target.add(chunk)
    await target.finish()
    target.keep()

    assert (tmp_path / "out").read_bytes() == b"".join(chunks)
    assert target.size_bytes == sum(map(len, chunks))


@pytest.mark.parametrize(
    ("proposed", "name"),
    [
        pytest.param("shop.sql.gz", "shop.sql.gz", id="plain"),
        pytest.param("../../etc/passwd", "passwd", id="upwards"),
        pytest.param("C:\\temp\\x.sql", "x.sql", id="of another system"),
        pytest.param("-rf", "rf", id="like an option"),
        pytest.param("..", "otherwise", id="nothing but dots"),
        pytest.param("", "otherwise", id="nothing"),
        pytest.param("a\x1b[2Jb\n", "a[2Jb", id="control characters"),
    ],
)
def test_a_proposed_name_is_made_safe(proposed: str, name: str) -> None:
    assert safe_file_name(proposed, otherwise="otherwise") == name
