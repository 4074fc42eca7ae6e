"""The real grpcurl against controller and agents, over mutual TLS and with a token, as docs/debugging.md shows it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.world import DATABASE_ID, World
from tools.servers import grpcurl

CONTROLLER_NAME = "controller.mathison.internal"
DATABASE_AGENT_NAME = f"{DATABASE_ID}.agent.mathison.internal"


@pytest.fixture(scope="module")
def program() -> Path:
    return grpcurl()


def call(world: World, program: Path, address: str, name: str, *words: str, options: tuple[str, ...] = ()) -> str:
    """Run it; its words are what stands in the documentation."""
    client = world.deployment.client
    identity = ["-cacert", client.authorities, "-cert", client.certificate, "-key", client.key]
    ended = subprocess.run(
        [str(word) for word in (program, *identity, "-authority", name, *options, address, *words)],
        env={"MATHISON_TOKEN": world.deployment.token},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def call_controller(world: World, program: Path, *words: str, data: str = "") -> str:
    # From the environment, so that the token does not stand on argv.
    options: tuple[str, ...] = ("-expand-headers", "-H", "authorization: Bearer ${MATHISON_TOKEN}")
    if data:
        options = (*options, "-d", data)
    return call(world, program, world.deployment.grpc_address, CONTROLLER_NAME, *words, options=options)


def call_agent(world: World, program: Path, *words: str, data: str = "") -> str:
    address = world.deployment[DATABASE_ID].address
    return call(world, program, address, DATABASE_AGENT_NAME, *words, options=("-d", data) if data else ())


def test_list_names_the_services(world: World, program: Path) -> None:
    of_controller = call_controller(world, program, "list").split()
    of_agent = call_agent(world, program, "list").split()

    assert "mathison.data.v1.DataController" in of_controller
    assert "mathison.data.v1.DataAgent" in of_agent
    assert "grpc.health.v1.Health" in of_controller
    assert "grpc.health.v1.Health" in of_agent


def test_describe_shows_the_calls(world: World, program: Path) -> None:
    of_controller = call_controller(world, program, "describe", "mathison.data.v1.DataController")
    of_agent = call_agent(world, program, "describe", "mathison.data.v1.DataAgent")

    assert "rpc ExportApp" in of_controller
    assert "rpc Export " in of_agent


def test_describe_app_and_describe_tell_about_the_app(world: World, program: Path) -> None:
    asked = json.dumps({"app_id": DATABASE_ID})
    by_controller = json.loads(
        call_controller(world, program, "mathison.data.v1.DataController/DescribeApp", data=asked)
    )
    by_agent = json.loads(call_agent(world, program, "mathison.data.v1.DataAgent/Describe"))

    assert by_controller["description"]["recipe"] == "postgresql"
    assert by_agent["appId"] == DATABASE_ID
    assert by_agent["canExport"] is True


def test_export_sends_frames_to_the_last_one(world: World, program: Path) -> None:
    asked = json.dumps({"app_id": DATABASE_ID, "transfer_id": "by-grpcurl"})
    by_controller = call_controller(world, program, "mathison.data.v1.DataController/ExportApp", data=asked)
    by_agent = call_agent(
        world, program, "mathison.data.v1.DataAgent/Export", data=json.dumps({"transfer_id": "by-grpcurl-too"})
    )

    for frames in (by_controller, by_agent):
        assert '"header"' in frames[:1000]
        end = json.loads("{" + frames[frames.rindex('"end": {') :])["end"]
        assert len(end["sha256"]) == 64


def test_health_is_served(world: World, program: Path) -> None:
    assert "SERVING" in call_controller(world, program, "grpc.health.v1.Health/Check")
    assert "SERVING" in call_agent(world, program, "grpc.health.v1.Health/Check")
