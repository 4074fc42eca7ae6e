"""A state directory is one process's at a time, and that of a dead process is nobody's."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from common.sole_use import InUseError, sole_use

HOLDER = """
import subprocess, sys, time
from pathlib import Path
from common.sole_use import sole_use
with sole_use(Path(sys.argv[1]), program="agent"):
    child = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL)
    print(child.pid, flush=True)
    time.sleep(60)
"""


def test_a_second_user_is_told_the_directory_until_the_first_has_left(tmp_path: Path) -> None:
    with (
        sole_use(tmp_path, program="agent"),
        pytest.raises(InUseError) as refused,
        sole_use(tmp_path, program="agent"),
    ):
        pass

    assert f"Another agent uses the state directory {tmp_path}." in str(refused.value)
    with sole_use(tmp_path, program="agent"):
        pass


def test_the_lock_of_a_killed_process_is_gone_though_a_child_of_it_lives(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        with pytest.raises(InUseError), sole_use(tmp_path, program="agent"):
            pass
        holder.kill()
        holder.wait()

    try:
        with sole_use(tmp_path, program="agent"):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_volume_without_locks_is_called_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)

    with pytest.raises(InUseError) as refused, sole_use(tmp_path, program="controller"):
        pass

    assert f"{tmp_path} cannot be kept from a second controller" in str(refused.value)
    assert "(no locks available)" in str(refused.value)
