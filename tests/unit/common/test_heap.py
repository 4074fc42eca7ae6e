"""What is freed goes back to the system: told by the kernel, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

HOLES = """
from common import heap

def anonymous_megabytes():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon:")) / 1024

# Small enough for the heap; the last holds the others' room where it is.
blocks = [b"x" * 100_000 for _ in range(400)]
del blocks[:-1]
before = anonymous_megabytes()
heap.give_back()
print(before - anonymous_megabytes())
"""


def test_holes_in_the_heap_are_given_back_to_the_system() -> None:
    ended = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, check=True)

    assert float(ended.stdout) > 30
