"""Keeps the agent small and quiet; imported before anything else by `agent.__main__`.

It sits in every pod, so its memory is paid for by each app. Importing this module is what does it.
"""

from __future__ import annotations

import os

import agent.later  # noqa: F401
import common.without_rich  # noqa: F401
from common import heap

# gRPC's C core reads these when it is imported. Handshakes that fail are the caller's news; ours is a log of one event
# a line. Its fork handlers guard against what agent.processes does not do: running Python in a forked child.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
# A heap for each thread means chunks of 1 MiB left over in each: with gRPC's threads and ours 15 MiB more at the end of
# an upload of 1.5 GB (76, not 61), at the same speed.
heap.limit_heaps(1)
