from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tools.deployment.memory import MIB, PeakMemory, descendants, forget_peak, peak_bytes, resident_bytes

HUNGRY = "import sys; held = bytearray(64 << 20); del held; print('ready', flush=True); sys.stdin.read()"


@pytest.fixture
def hungry() -> Iterator[subprocess.Popen[str]]:
    """A process that has used 64 MiB and has given them back."""
    with subprocess.Popen(
        [sys.executable, "-c", HUNGRY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process


def test_a_peak_is_remembered_until_it_is_forgotten(hungry: subprocess.Popen[str]) -> None:
    assert peak_bytes(hungry.pid) > 64 * MIB > resident_bytes(hungry.pid)

    forget_peak(hungry.pid)

    assert peak_bytes(hungry.pid) < 64 * MIB


def test_children_are_measured_under_their_program(hungry: subprocess.Popen[str]) -> None:
    assert hungry.pid in descendants(os.getpid())
    child = subprocess.Popen(["sleep", "60"])

    with PeakMemory({"this": os.getpid()}) as memory:
        pass

    child.kill()
    child.wait()
    assert memory.peaks_bytes["this"] > 0
    assert memory.peaks_bytes["this: sleep"] > 0


def test_a_process_that_is_gone_has_no_memory() -> None:
    child = subprocess.Popen(["true"])
    child.wait()

    assert (peak_bytes(child.pid), resident_bytes(child.pid), descendants(child.pid)) == (0, 0, [])
