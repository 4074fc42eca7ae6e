"""Keeps the program small and its log clean; imported before anything else by `__main__`. Importing is what does it."""

from __future__ import annotations

import os

import common.without_rich  # noqa: F401
from common import heap

# Read by gRPC's C core when it is imported. What it prints by itself, of handshakes that fail for example, would stand
# between lines of JSON; calls that fail are in our own log.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
# Each thread would get a heap of its own, where freed chunks of 1 MiB stay behind.
heap.limit_heaps(2)
