"""Pages of programs and libraries that only loading them touched: a third of an agent's resident memory at rest.

The one fact to know: a page that was written to is the process's own, and letting go of it would lose what was written
(RELRO, relocations in code, breakpoints). All others stay with the system, which maps them again when they are touched.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator

_MADV_DONTNEED = 4
"""madvise(2)."""
_OWN = (b"Anonymous:", b"Swap:")
"""Of proc_pid_smaps(5): what counts the process's own copies. `Private_Dirty` also counts the file's pages until the
system has written them to the disk, as after an installation, and always in a tmpfs."""
_madvise = getattr(ctypes.CDLL(None), "madvise", None)


def let_go() -> None:
    """Unmap them, in about 10 ms; for when all is imported and no thread was started. With other threads it does
    nothing, since they could write to a page or have another mapping there meanwhile; nor where the system does not say
    which pages are written (no /proc/self/smaps), nor, a mapping at a time, where it refuses."""
    try:
        if _madvise is not None and len(os.listdir("/proc/self/task")) == 1:
            for start, end in list(_unwritten()):
                _madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED)
    except OSError:
        pass


def _unwritten() -> Iterator[tuple[int, int]]:
    """Start and end of each private mapping of a file that cannot be written to and has no written page."""
    with open("/proc/self/smaps", "rb") as smaps:
        for line in smaps:
            first, *others = line.split()
            if not first.endswith(b":"):
                start, end = (int(address, 16) for address in first.split(b"-"))
                # The vdso and its like have a name in brackets.
                is_library = others[0] in (b"r--p", b"r-xp") and others[4:] and others[4].startswith(b"/")
                written = dict.fromkeys(_OWN, b"unknown")
            elif first in _OWN:
                written[first] = others[0]
            elif first == b"VmFlags:" and is_library and set(written.values()) == {b"0"}:
                yield start, end
