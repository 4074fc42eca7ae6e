"""A real agent process over mutual TLS, with the recipe of tests/fakes, which a test stops and watches by files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from agent.identity import note_renewal
from common.credentials import TARGET_NAME_OPTION, Identity, IdentityFiles, agent_name, key_to_pem, new_key
from controller.identity.ca import CertificateAuthority
from mathison.data.v1 import agent_pb2 as messages
from mathison.data.v1 import agent_pb2_grpc, transfer_pb2

ROOT = Path(__file__).parents[4]
APP_ID = "shop.db"
START_SECONDS = 30.0


class AgentProcess:
    """One agent, with everything it needs in one directory; may be started again and again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.state = directory / "state"
        self.app = directory / "app"
        self.log_path = directory / "agent.log"
        self.config = directory / "agent.toml"
        self.recipe_settings: dict[str, Any] = {"directory": str(self.app)}
        self.settings: dict[str, Any] = {"stop_grace_seconds": 20}
        self.controller = {"enrolment": "127.0.0.1:1", "renewal": "127.0.0.1:1"}
        self.authority = CertificateAuthority.open(directory / "authority")
        self.process: subprocess.Popen[bytes] | None = None
        self.app.mkdir(parents=True)
        (self.app / "live").write_bytes(b"old data")
        plugin = directory / "plugins" / "fake-1.dist-info"
        plugin.mkdir(parents=True)
        (plugin / "METADATA").write_text("Metadata-Version: 2.1\nName: fake\nVersion: 1\n")
        (plugin / "entry_points.txt").write_text("[mathison.data.recipes]\nfake = tests.fakes.recipe:FakeRecipe\n")

    def write_config(self) -> None:
        lines = [f'app_id = "{APP_ID}"', 'recipe = "fake"', 'listen = "127.0.0.1:0"', 'state_directory = "state"']
        lines += [f"{name} = {json.dumps(value)}" for name, value in self.settings.items()]
        for table, values in (("controller", self.controller), ("recipe_settings", self.recipe_settings)):
            lines += [f"[{table}]", *(f"{name} = {json.dumps(value)}" for name, value in values.items())]
        self.config.write_text("\n".join(lines))

    def give_identity(self) -> None:
        """A certificate as enrolment would have brought it."""
        key = new_key()
        issued = self.authority.issue_agent(APP_ID, key.public_key())
        identity = Identity(key=key_to_pem(key), certificate=issued.certificate, authorities=issued.authorities)
        files = IdentityFiles(self.state / "identity")
        files.save(identity)
        note_renewal(files, APP_ID, identity.renew_at())

    def command(self, *arguments: str) -> list[str]:
        return [str(Path(sys.executable).with_name("mathison-agent")), "--config", str(self.config), *arguments]

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": f"{self.directory / 'plugins'}:{ROOT}"}

    def launch(self) -> None:
        """Start the program and go on at once."""
        self.write_config()
        self.address_file.unlink(missing_ok=True)
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(self.command(), env=self.environment, stdout=log, stderr=log)

    def start(self) -> None:
        """Start it and wait until it serves."""
        self.launch()
        deadline = time.monotonic() + START_SECONDS
        while not self.address_file.exists():
            assert self.process is not None
            assert self.process.poll() is None, self.log_path.read_text()
            assert time.monotonic() < deadline, self.log_path.read_text()
            time.sleep(0.02)

    @property
    def address_file(self) -> Path:
        return self.state / "address"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, seconds: float = 30) -> int:
        """Its exit status."""
        assert self.process is not None
        return self.process.wait(seconds)

    def kill(self) -> None:
        """SIGKILL, as a node that loses power."""
        self.send(signal.SIGKILL)
        self.wait()

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def pause(self, step: str) -> None:
        """Let the recipe wait there."""
        (self.app / f"pause {step}").touch()

    def go_on(self, step: str) -> None:
        (self.app / f"pause {step}").unlink()

    def has_reached(self, step: str) -> bool:
        return (self.app / f"reached {step}").exists()

    @property
    def live(self) -> bytes:
        return (self.app / "live").read_bytes()

    @property
    def beside(self) -> set[str]:
        return {path.name.split("-")[0] for path in self.app.iterdir() if "-" in path.name}

    @property
    def journal_lines(self) -> int:
        return len(list((self.state / "journal").glob("*.json")))

    @property
    def log(self) -> list[dict[str, Any]]:
        """What it has logged, every line parsed."""
        return [json.loads(line) for line in self.log_path.read_text().splitlines()]

    @property
    def controller_identity(self) -> Identity:
        return self.authority.issue_controller()

    def channel(self, credentials: grpc.ChannelCredentials | None = None) -> grpc.aio.Channel:
        """Dial it; as the controller unless told otherwise."""
        credentials = credentials or self.controller_identity.channel_credentials()
        options = [(TARGET_NAME_OPTION, agent_name(APP_ID)), ("grpc.use_local_subchannel_pool", 1)]
        return grpc.aio.secure_channel(self.address_file.read_text(), credentials, options=options)


@pytest.fixture
def stopped_agent(tmp_path: Path) -> Iterator[AgentProcess]:
    """An agent with a certificate that is not started yet."""
    agent = AgentProcess(tmp_path)
    agent.give_identity()
    yield agent
    agent.close()


@pytest.fixture
def agent(stopped_agent: AgentProcess) -> AgentProcess:
    """An agent that serves."""
    stopped_agent.start()
    return stopped_agent


@pytest.fixture
async def stub(agent: AgentProcess) -> AsyncIterator[agent_pb2_grpc.DataAgentStub]:
    """Calls to it, as the controller."""
    async with agent.channel() as channel:
        yield agent_pb2_grpc.DataAgentStub(channel)


def stage_requests(
    transfer_id: str, frames: Iterable[transfer_pb2.Frame], *, dry_run: bool = False
) -> Iterator[messages.StageRequest]:
    """The messages of an upload."""
    yield messages.StageRequest(start=messages.StageStart(transfer_id=transfer_id, dry_run=dry_run))
    for frame in frames:
        yield messages.StageRequest(frame=frame)
