"""What runs in a jail parses uploads, and holds nothing that it does not need."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.fixtures.nursery import MODULES

CHILDREN = sorted({*MODULES} - {"agent.engines.minio.server.watchdog"})
"""The watchdog reads nothing of an upload and is in no jail."""
SERVING = {"agent.processes", "aiohttp", "asyncio", "grpc", "structlog"}
"""What the agent speaks to others with, and starts children with; most of a second of a child's start."""
ASKS_A_SERVER = {"agent.engines.pg.loading.loader_child": ["asyncio"]}


@pytest.mark.parametrize("module", CHILDREN)
def test_a_jailed_child_does_without_what_the_agent_serves_with(module: str) -> None:
    program = f"import sys, {module}; print(sorted({SERVING} & sys.modules.keys()))"

    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert ended.stdout.strip() == str(ASKS_A_SERVER.get(module, []))
