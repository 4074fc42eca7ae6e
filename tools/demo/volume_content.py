"""A folder as apps have them: thousands of files of all sizes, links, and names that some programs stumble over."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

from tools.demo.volume_app import DATABASE, LIVE_FOLDER

MEGABYTE = 1_000_000
_TEXT = (Path(__file__).parent / "words.txt").read_text()


def fill(directory: Path, *, size_megabytes: int, files: int = 3000, seed: int = 1) -> None:
    """Make files in a folder that is there; the same seed gives the same content. Modification times are old."""
    choice = random.Random(seed)  # noqa: S311 - nothing secret
    shares = [choice.paretovariate(1.1) for _ in range(files)]
    scale = size_megabytes * MEGABYTE / sum(shares)
    for number, share in enumerate(shares):
        folder = directory / "photos" / f"{2015 + number % 10}" / f"{number % 37:02}"
        folder.mkdir(parents=True, exist_ok=True)
        size = int(share * scale)
        if number % 3:
            _write(folder / f"{number:05}.jpg", choice.randbytes(size), number)
        else:
            _write(folder / f"{number:05}.txt", (_TEXT * (size // len(_TEXT) + 1))[:size].encode(), number)
    _make_odd_things(directory / "odd", choice)


def fill_incompressible(directory: Path, *, size_megabytes: int, seed: int = 1) -> None:
    """Files of 64 KiB to 64 MiB of random bytes, as photos and films are to a compressor."""
    choice = random.Random(seed)  # noqa: S311 - nothing secret
    left = size_megabytes * MEGABYTE
    number = 0
    while left:
        size = min(left, int(65536 * 1024 ** choice.random()))
        folder = directory / f"{number % 10}"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{number:05}.bin").open("wb") as file:
            for start in range(0, size, 1 << 20):
                file.write(os.urandom(min(1 << 20, size - start)))
        left -= size
        number += 1


def write_more(directory: Path) -> None:
    """Files added, changed and deleted."""
    for number, path in enumerate(sorted((directory / "photos").rglob("*.txt"))):
        if number % 20 == 0:
            path.unlink()
        elif number % 20 == 1:
            path.write_text("written over\n")
    for number in range(50):
        _write(directory / "photos" / f"new {number}.txt", b"new\n" * number, number)


def wipe(directory: Path) -> None:
    """Delete everything in the folder, not the folder. Its app has to be stopped."""
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def is_left_alone(path: str) -> bool:
    """Whether the app of tools/demo/volume_app.py never writes to this path, relative to its folder."""
    return not path.startswith((DATABASE, f"{LIVE_FOLDER}/")) and path != LIVE_FOLDER


def _make_odd_things(folder: Path, choice: random.Random) -> None:
    folder.mkdir()
    _write(folder / "empty", b"", 0)
    _write(folder / ("long name " * 20).strip(), b"x", 1)
    _write(folder / "größe ✓ \n zwei Zeilen", b"y", 2)
    (folder / os.fsdecode(b"not utf-8 \xff\xfe")).write_bytes(b"z")
    _write(folder / "program.sh", b"#!/bin/sh\necho hello\n", 3)
    (folder / "program.sh").chmod(0o750)
    (folder / "empty folder").mkdir(mode=0o700)
    (folder / "link").symlink_to("program.sh")
    (folder / "link to nothing").symlink_to("../not there")
    os.link(folder / "program.sh", folder / "second name")
    with (folder / "sparse").open("wb") as file:
        file.seek(8 << 20)
        file.write(choice.randbytes(100))


def _write(path: Path, content: bytes, number: int) -> None:
    path.write_bytes(content)
    moment = 1_600_000_000 + number * 1000
    os.utime(path, (moment, moment))
