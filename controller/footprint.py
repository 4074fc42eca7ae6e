"""Keeps the program small and its log clean; imported before anything else by `__main__`. Importing is what does it."""

from __future__ import annotations

import contextlib
import ctypes
import os

_M_ARENA_MAX = -8
"""mallopt(3)."""

# Read by gRPC's C core when it is imported. What it prints by itself, of handshakes that fail for example, would stand
# between lines of JSON; calls that fail are in our own log.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
with contextlib.suppress(AttributeError):
    # Each thread would get a heap of its own, where freed chunks of 1 MiB stay behind. Only glibc has this.
    ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)
