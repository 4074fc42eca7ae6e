"""Becomes a server: `python launcher.py PARENT_PID SIGNAL UID GID PROGRAM ARGUMENT...`, with -1 for the caller's ids.

Asks the kernel to send the server SIGNAL when the thread that started it ends, however it ends, and gives up root. Run
as a program of its own because the same in subprocess's preexec_fn can hang when the caller has threads, as grpc does.
It runs without this project on its path, so it imports the standard library only.
"""

from __future__ import annotations

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Does not return: this process becomes the server."""
    parent, signal_number, uid, gid = (int(word) for word in sys.argv[1:5])
    command = sys.argv[5:]
    # Loaded while still root: root's Python may lie where nobody else can read.
    libc = ctypes.CDLL(None, use_errno=True)
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    # After setuid, which clears it (prctl(2)).
    if libc.prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        sys.exit("launcher: the caller ended before the server was started")
    os.execv(command[0], command)  # noqa: S606 - no shell is what is wanted


if __name__ == "__main__":
    main()
