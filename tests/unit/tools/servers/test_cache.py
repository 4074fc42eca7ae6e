"""tools/servers/cache.py: whole or not at all, once, and open to the user that root's servers run as."""

from __future__ import annotations

import multiprocessing
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tools.servers.cache import ServerUnavailableError, cache_directory, kept, kept_path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_was_made_is_found_again_and_not_made_twice() -> None:
    made: list[Path] = []

    def make(making: Path) -> None:
        made.append(making)
        (making / "program").write_text("x")

    first = kept("redis", "1.0", make)
    second = kept("redis", "1.0", make)

    assert first == second == kept_path("redis", "1.0")
    assert (first / "program").read_text() == "x"
    assert len(made) == 1


def test_nothing_is_kept_of_what_failed_half_way() -> None:
    def make(making: Path) -> None:
        (making / "half").write_text("x")
        raise ServerUnavailableError("redis", "the network is down")

    with pytest.raises(ServerUnavailableError, match="redis cannot be had: the network is down"):
        kept("redis", "1.0", make)

    assert [path.name for path in kept_path("redis", "1.0").parent.iterdir()] == [".1.0.lock"]


def test_what_a_killed_process_left_half_made_is_not_taken_over() -> None:
    left = kept_path("redis", "1.0").with_name(".1.0.making")
    left.mkdir(parents=True)
    (left / "half").write_text("x")

    made = kept("redis", "1.0", lambda making: (making / "whole").touch())

    assert [path.name for path in made.iterdir()] == ["whole"]


def test_two_who_want_the_same_at_once_make_it_once() -> None:
    def make(making: Path) -> None:
        (making / "pid").write_text(str(os.getpid()))
        made.append(making)

    made: list[Path] = []
    with ThreadPoolExecutor(4) as pool:
        folders = {future.result() for future in [pool.submit(kept, "redis", "1.0", make) for _ in range(4)]}

    assert len(folders) == len(made) == 1


def _make_in_another_process(start: str) -> None:
    def make(making: Path) -> None:
        (making / "pid").write_text(str(os.getpid()))

    while not os.path.exists(start):
        pass
    kept("redis", "2.0", make)


def test_two_processes_make_it_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start = tmp_path / "start"
    processes = [context.Process(target=_make_in_another_process, args=(str(start),)) for _ in range(2)]
    for process in processes:
        process.start()

    start.touch()
    for process in processes:
        process.join(30)

    assert [process.exitcode for process in processes] == [0, 0]
    assert (kept_path("redis", "2.0") / "pid").read_text() in [str(process.pid) for process in processes]


def test_a_strict_umask_does_not_close_the_cache_to_others(cache: Path) -> None:
    def make(making: Path) -> None:
        (making / "bin").mkdir()
        (making / "bin" / "server").touch(0o700)
        (making / "data").touch(0o600)
        (making / "link").symlink_to("/nowhere")

    before = os.umask(0o077)
    try:
        made = kept("redis", "1.0", make)
    finally:
        os.umask(before)

    modes = {path.name: stat.S_IMODE(path.lstat().st_mode) for path in made.rglob("*") if not path.is_symlink()}
    assert modes == {"bin": 0o755, "server": 0o755, "data": 0o644}
    assert all(path.stat().st_mode & 0o005 == 0o005 for path in (made, made.parent, cache / "mathison-data"))


def test_a_cache_that_cannot_be_written_is_said(cache: Path) -> None:
    cache.write_text("a file is in the way")

    with pytest.raises(ServerUnavailableError, match="the cache cannot be written"):
        kept("redis", "1.0", lambda _: None)


@pytest.mark.parametrize(
    ("uid", "chosen", "expected"),
    [
        (1000, None, "/home/kim/.cache/mathison-data"),
        (0, None, "/var/cache/mathison-data"),
        (0, "/somewhere", "/somewhere/mathison-data"),
        (1000, "relative", "/home/kim/.cache/mathison-data"),
        (1000, "", "/home/kim/.cache/mathison-data"),
    ],
)
def test_the_cache_is_where_its_reader_can_go(
    uid: int, chosen: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setenv("HOME", "/home/kim")
    if chosen is None:
        monkeypatch.delenv("XDG_CACHE_HOME")
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", chosen)

    assert cache_directory() == Path(expected)
