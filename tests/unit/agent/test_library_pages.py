"""Pages that are let go of, in processes of their own: told by the kernel, and by what is read afterwards."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_FIRST = """
import ctypes, mmap, sys, threading
from agent import library_pages

libc = ctypes.CDLL(None)
size = 8 * mmap.PAGESIZE

def map_file(path):
    with open(path, "r+b") as file:
        return mmap.mmap(file.fileno(), size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)

def protect(mapping):
    address = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
    assert libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(size), mmap.PROT_READ) == 0

def file_kib():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssFile:"))

def resident_kib(mapping):
    start = f"{ctypes.addressof(ctypes.c_char.from_buffer(mapping)):x}-"
    with open("/proc/self/smaps") as smaps:
        lines = iter(smaps)
        next(line for line in lines if line.startswith(start))
        return next(int(line.split()[1]) for line in lines if line.startswith("Rss:"))
"""


def printed(code: str, *arguments: Path) -> list[str]:
    ended = subprocess.run(
        [sys.executable, "-c", _FIRST + code, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.split()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Larger than any page eight times over."""
    path = tmp_path / "file"
    path.write_bytes(b"from the file " * 100_000)
    return path


@pytest.mark.parametrize("then", ["", "protect(mapping)"], ids=["still writable", "read-only by then, as RELRO is"])
def test_what_was_written_to_a_private_mapping_of_a_file_stays(file: Path, then: str) -> None:
    code = f"""
mapping = map_file(sys.argv[1])
mapping[mmap.PAGESIZE + 5 : mmap.PAGESIZE + 12] = b"written"
before = mapping[:]
{then}
library_pages.let_go()
print(mapping[:] == before, b"written" in before)
"""
    assert printed(code, file) == ["True", "True"]


def test_unwritten_pages_of_a_file_are_unmapped_and_read_the_same_again(file: Path) -> None:
    code = """
mapping = map_file(sys.argv[1])
protect(mapping)
before = mapping[:], resident_kib(mapping)
library_pages.let_go()
print(before[1] > 0, resident_kib(mapping), mapping[:] == before[0])
"""
    assert printed(code, file) == ["True", "0", "True"]


def test_the_pages_that_importing_grpc_touched_are_let_go_of() -> None:
    code = """
import grpc
before = file_kib()
library_pages.let_go()
print(before - file_kib())
"""
    [let_go_kib] = printed(code)

    # Of 20,000, with Python's own.
    assert int(let_go_kib) > 8_000


def test_nothing_is_let_go_of_beside_another_thread(file: Path) -> None:
    code = """
mapping = map_file(sys.argv[1])
protect(mapping)
mapping[:]
over = threading.Event()
thread = threading.Thread(target=over.wait)
thread.start()
before = resident_kib(mapping)
library_pages.let_go()
print(resident_kib(mapping) == before > 0)
over.set()
"""
    assert printed(code, file) == ["True"]


@pytest.mark.parametrize(
    "without",
    [
        'library_pages.open = lambda *_: open("/proc/no/such")',
        "library_pages._madvise = None",
        "library_pages._OWN += (b'Other:',)",
    ],
    ids=["smaps", "madvise", "a figure of smaps"],
)
def test_a_system_without_what_it_needs_keeps_all(file: Path, without: str) -> None:
    code = f"""
mapping = map_file(sys.argv[1])
protect(mapping)
before = mapping[:], resident_kib(mapping)
{without}
library_pages.let_go()
print(resident_kib(mapping) == before[1] > 0)
"""
    assert printed(code, file) == ["True"]
