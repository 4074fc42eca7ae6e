"""Most memory of each process over all that was measured, how much that is above the process at rest, and what is its
own at rest again."""

from __future__ import annotations

import time
from collections.abc import Mapping

from agent.housekeeping import INTERVAL_SECONDS
from benchmarks.fake_agent import RelayedApp
from benchmarks.rows import Row, less_than
from tools.deployment import Deployment
from tools.deployment.memory import MIB, own_bytes, peak_bytes, resident_bytes

AGENT_MIB = 64
CONTROLLER_MIB = 256
ABOVE_IDLE_MIB = 48


def pids(deployment: Deployment) -> dict[str, int]:
    """The product's own processes by what they are called in the rows."""
    agents = {
        f"agent of {app_id}": site.agent.pid
        for app_id, site in deployment.sites.items()
        if not isinstance(site.app, RelayedApp)
    }
    return {"controller": deployment.controller.pid, **agents}


def resident(deployment: Deployment) -> dict[str, int]:
    """Bytes of each now."""
    return {name: resident_bytes(pid) for name, pid in pids(deployment).items()}


def memory_rows(deployment: Deployment, idle_bytes: Mapping[str, int], children_bytes: Mapping[str, int]) -> list[Row]:
    """
    Args:
        idle_bytes: of each process before its first transfer, by the names of `pids`.
        children_bytes: peaks of what they started.
    """
    rows = []
    for name, pid in pids(deployment).items():
        peak = peak_bytes(pid)
        limit = CONTROLLER_MIB if name == "controller" else AGENT_MIB
        rows.append(Row(f"peak memory, {name}", peak / MIB, "MiB", less_than(limit)))
        above = (peak - idle_bytes[name]) / MIB
        rows.append(Row(f"peak memory above idle, {name}", above, "MiB", less_than(ABOVE_IDLE_MIB)))
    rows += [Row(f"peak memory, {name}", peak / MIB, "MiB", None) for name, peak in children_bytes.items()]
    time.sleep(2 * INTERVAL_SECONDS)  # by then they have given back what a transfer needed
    rows += [
        Row(f"memory of its own at rest, {name}", own_bytes(pid) / MIB, "MiB", None)
        for name, pid in pids(deployment).items()
    ]
    return rows
