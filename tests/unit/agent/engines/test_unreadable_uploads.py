"""What an agent that is not root unpacked with a mode that keeps its own user out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.engines.filesystem import DIRECTORY
from agent.engines.kuma import layout
from agent.engines.n8n.importing import take_dump
from common.errors import ArchiveDamagedError

_NOBODY = 65534


@pytest.fixture
def staged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory: what is above it may not be entered by another user."""
    (tmp_path / "staged").mkdir()
    monkeypatch.chdir(tmp_path / "staged")
    return Path()


def test_a_dump_that_may_not_be_read_is_named(staged: Path) -> None:
    (staged / "database.sql").write_text("--")
    (staged / "database.sql").chmod(0)

    with without_root(), pytest.raises(ArchiveDamagedError, match=r"database\.sql in the archive"):
        take_dump(staged, None, "database.sqlite")


@pytest.mark.parametrize("mode", [0o000, 0o500], ids=oct)
def test_a_folder_around_the_data_that_may_not_be_used_is_said(mode: int, staged: Path) -> None:
    (staged / "app").mkdir()
    (staged / "app" / "kuma.db").touch()
    (staged / "app").chmod(mode)
    descriptor = os.open(staged, DIRECTORY)
    try:
        with without_root(), pytest.raises(ArchiveDamagedError, match="owner may not use"):
            layout.settle(descriptor)
    finally:
        os.close(descriptor)
        (staged / "app").chmod(0o700)


@contextmanager
def without_root() -> Iterator[None]:
    uid = os.geteuid()
    if uid == 0:
        for path in (Path(), *Path().iterdir()):
            os.chown(path, _NOBODY, -1)
        os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(uid)
