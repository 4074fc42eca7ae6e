"""What runs in a jail parses uploads, and holds nothing that it does not need."""

from __future__ import annotations

import subprocess
import sys

import pytest

CHILDREN = (
    "agent.archives.extractor_child",
    "agent.engines.mariadb.filter_child",
    "agent.engines.n8n.preparing_child",
    "agent.engines.pg.archive_child",
    "agent.engines.pg.loader_child",
    "agent.engines.rdb.child",
    "agent.engines.sqlite_child",
    "agent.unpacking_child",
)


@pytest.mark.parametrize("module", CHILDREN)
def test_a_jailed_child_does_without_grpc(module: str) -> None:
    program = f"import sys, {module}; print('grpc' in sys.modules)"

    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert ended.stdout.strip() == "False"
