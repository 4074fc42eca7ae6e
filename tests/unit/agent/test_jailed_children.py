"""What runs in a jail parses uploads, and holds nothing that it does not need."""

from __future__ import annotations

import subprocess
import sys

import pytest

CHILDREN = (
    "agent.archives.extractor_child",
    "agent.engines.mariadb.filter_child",
    "agent.engines.minio.census_child",
    "agent.engines.minio.sealing_child",
    "agent.engines.n8n.preparing_child",
    "agent.engines.n8n.sealing_child",
    "agent.engines.pg.archive_child",
    "agent.engines.pg.loader_child",
    "agent.engines.rdb.child",
    "agent.engines.replay.minio_child",
    "agent.engines.replay.n8n_child",
    "agent.engines.replay.volume_child",
    "agent.engines.sqlite_child",
    "agent.unpacking_child",
)


SERVING = {"agent.processes", "aiohttp", "asyncio", "grpc", "structlog"}
"""What the agent speaks to others with, and starts children with; most of a second of a child's start."""
ASKS_A_SERVER = {"agent.engines.pg.loader_child": ["asyncio"]}


@pytest.mark.parametrize("module", CHILDREN)
def test_a_jailed_child_does_without_what_the_agent_serves_with(module: str) -> None:
    program = f"import sys, {module}; print(sorted({SERVING} & sys.modules.keys()))"

    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert ended.stdout.strip() == str(ASKS_A_SERVER.get(module, []))
