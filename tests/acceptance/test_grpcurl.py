"""The commands of docs/debugging.md, run as they stand there: the real grpcurl, mutual TLS, a token."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.world import DATABASE_ID, World
from tools.deployment import write_demo_file
from tools.servers import grpcurl

HOLDS_NOTHING_UP = True
CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = (CHECKOUT / "docs" / "debugging.md").read_text()
SET_UP, *BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE.split("## The wire, with grpcurl")[1], re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]
EXPECTED = {
    "controller list": ["mathison.data.v1.DataController", "grpc.health.v1.Health"],
    "controller describe mathison.data.v1.DataController": ["rpc ExportApp", "rpc ImportApp"],
    "agent list": ["mathison.data.v1.DataAgent", "grpc.health.v1.Health"],
    "agent describe mathison.data.v1.DataAgent": ["rpc Export ", "rpc Stage "],
    "DataController/ListApps": [f'"app_id": "{DATABASE_ID}"', '"is_available": true'],
    "DataController/DescribeApp": ['"recipe": "postgresql"', '"can_export": true'],
    "DataAgent/Describe": [f'"app_id": "{DATABASE_ID}"', '"can_import": true'],
    "DataController/ExportApp": ['"end": {', '"sha256": "'],
    "DataAgent/Export": ['"end": {', '"sha256": "'],
    "DataAgent/WatchTransfer": ["TRANSFER_RESULT_SUCCEEDED"],
    "controller grpc.health.v1.Health/Check": ["SERVING"],
    "agent grpc.health.v1.Health/Check": ["SERVING"],
}


@pytest.fixture(scope="module")
def environment(deployed_world: World) -> dict[str, str]:
    grpcurl()
    demo_file = deployed_world.folder / "demo.json"
    write_demo_file(demo_file, deployed_world.deployment)
    return {**os.environ, "MATHISON_DEMO": str(demo_file)}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_documented_command_shows_what_it_should(world: World, environment: dict[str, str], command: str) -> None:
    (expected,) = (words for name, words in EXPECTED.items() if re.search(rf"{re.escape(name)}( \||$)", command))

    ended = subprocess.run(
        ["bash", "-o", "pipefail", "-e", "-c", f"{SET_UP}\n{command}"],
        cwd=CHECKOUT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    assert [words for words in expected if words not in ended.stdout] == [], ended.stdout


def test_a_caller_without_a_certificate_is_refused(world: World) -> None:
    for address in (world.deployment.grpc_address, world.deployment[DATABASE_ID].address):
        command = [str(grpcurl()), "-insecure", "-connect-timeout", "2", address, "list"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

        assert ended.returncode != 0


def test_a_caller_without_a_token_is_refused_by_the_controller(world: World, environment: dict[str, str]) -> None:
    ended = subprocess.run(
        ["bash", "-c", f"{SET_UP}\nMATHISON_TOKEN=wrong\ncontroller mathison.data.v1.DataController/ListApps"],
        cwd=CHECKOUT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode != 0
    assert "Unauthenticated" in ended.stderr
