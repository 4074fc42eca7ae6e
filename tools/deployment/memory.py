"""Peak memory of processes and of the children that they start, as the kernel counts it (VmHWM of proc(5))."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

MIB = 1 << 20
SAMPLE_SECONDS = 0.05
"""Between two looks at the children, which are gone when they end; the programs themselves are read at the end."""


def peak_bytes(pid: int) -> int:
    """The most resident memory that a process ever had, or had since `forget_peak`; 0 when it is gone."""
    return _status(pid).get("VmHWM", 0)


def resident_bytes(pid: int) -> int:
    """Resident memory now; 0 when the process is gone."""
    return _status(pid).get("VmRSS", 0)


def own_bytes(pid: int) -> int:
    """Resident memory that no other process shares: what one more such process costs. 0 when the process is gone."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))
    return 0


def forget_peak(pid: int) -> None:
    """Count its peak from now on; proc(5), clear_refs."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


class PeakMemory:
    """Watches programs for the time of a block.

    Attributes:
        peaks_bytes: by the program's name; children as "<name>: <program>".
    """

    def __init__(self, pids: Mapping[str, int], *, forgets: bool = False) -> None:
        """
        Args:
            forgets: whether what the programs themselves needed before is forgotten first.
        """
        self._pids = dict(pids)
        self._forgets = forgets
        self.peaks_bytes: dict[str, int] = {}
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="watch memory", daemon=True)

    def __enter__(self) -> Self:
        for pid in self._pids.values() if self._forgets else ():
            forget_peak(pid)
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._watcher.join()
        self._look()

    def _watch(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            self._look()

    def _look(self) -> None:
        for name, pid in self._pids.items():
            self._note(name, pid)
            for descendant in descendants(pid):
                if program := program_of(descendant):
                    self._note(f"{name}: {program}", descendant)

    def _note(self, name: str, pid: int) -> None:
        self.peaks_bytes[name] = max(self.peaks_bytes.get(name, 0), peak_bytes(pid))


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and those that they have, as far as they live."""
    found = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            for child in map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split()):
                found += [child, *descendants(child)]
    return found


def program_of(pid: int) -> str:
    """The program's name; for a Python module of ours, the module's. Empty: not that program yet, or ended."""
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if b"-m" in words:
            return words[words.index(b"-m") + 1].decode(errors="replace").rpartition(".")[2]
        name = os.path.basename(words[0]).decode(errors="replace")
        # Between fork and exec, and in the script that sets limits first, a child is some Python.
        return "" if name.startswith("python") else name
    return ""


def _status(pid: int) -> dict[str, int]:
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith(" kB")}
    return {}
