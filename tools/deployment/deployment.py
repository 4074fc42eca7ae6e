"""The product on one machine: real apps, one agent each, and a controller.

`with Deployment(folder, [DatabaseApp("shop.db"), VolumeApp("shop.files")]) as deployment:` brings it all up, as
processes that end when the block or this Python process ends.
"""

from __future__ import annotations

import contextlib
import json
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.error import URLError

import grpc

from common.files import private_directory, write_atomically
from mathison.data.v1 import controller_pb2
from tools.deployment.apps import App
from tools.deployment.calls import ClientFiles, describe_app
from tools.deployment.ports import ReservedPorts
from tools.deployment.programs import DeploymentError, Program, run_command, script
from tools.deployment.toml_text import Table, to_toml

READY_SECONDS = 40.0
"""For one program; starting takes 1 to 3 s on an idle machine."""
CLIENT_NAME = "debugging"
SCOPES = ("read", "export", "import")


@dataclass
class Site:
    """One app with its agent."""

    app: App
    address: str
    agent: Program
    config_path: Path
    state_directory: Path


@dataclass
class Deployment:
    """Everything, running, inside the block.

    Attributes:
        directory: holds all state, logs and secrets; to be removed by whoever made it.
        agent_settings: more tables for an agent's configuration, by app id, for example {"limits": {...}}.
        rest: URL of the REST API, without a slash at its end.
        grpc_address: host and port of the controller's gRPC service.
        token: for both, with all scopes. Secret.
        client: certificate for debugging.
    """

    directory: Path
    apps: Sequence[App]
    agent_settings: Mapping[str, Table] = field(default_factory=dict)
    say: Callable[[str], None] = lambda sentence: None
    """Told what is being done, one sentence each."""
    rest: str = field(init=False, default="")
    grpc_address: str = field(init=False, default="")
    token: str = field(init=False, default="", repr=False)
    sites: dict[str, Site] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.directory = self.directory.resolve()
        self._stack = ExitStack()
        self._ports = ReservedPorts()
        self.config_path = self.directory / "controller" / "controller.toml"
        self.controller = Program(
            "controller",
            [script("mathison-controller"), "serve", "--config", self.config_path],
            directory=self.config_path.parent,
        )

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def __getitem__(self, app_id: str) -> Site:
        return self.sites[app_id]

    @property
    def client(self) -> ClientFiles:
        return ClientFiles(
            authorities=self.directory / "client" / "ca.crt",
            certificate=self.directory / "client" / f"{CLIENT_NAME}.crt",
            key=self.directory / "client" / f"{CLIENT_NAME}.key",
        )

    @property
    def token_path(self) -> Path:
        """A file with the token, for programs that read it from one."""
        return self.directory / "client" / "token"

    @property
    def header_path(self) -> Path:
        """A file with the token as an HTTP header, for curl's `--header @FILE`."""
        return self.directory / "client" / "header"

    def to_json(self) -> dict[str, Any]:
        """How to reach everything, as documented for `.demo/demo.json`. Holds secrets."""
        return {
            "rest": self.rest,
            "grpc": self.grpc_address,
            "token": self.token,
            "ca": str(self.client.authorities),
            "client_cert": str(self.client.certificate),
            "client_key": str(self.client.key),
            "controller_pid": self.controller.pid,
            "apps": [
                {
                    "id": app_id,
                    "recipe": site.app.recipe,
                    "agent": site.address,
                    "agent_pid": site.agent.pid,
                    "app_pid": site.app.pid,
                    "connection": dict(site.app.connection()),
                }
                for app_id, site in self.sites.items()
            ],
        }

    def describe(self, app_id: str, *, timeout_seconds: float = 10.0) -> controller_pb2.DescribeAppResponse:
        """Asks the controller, which asks the agent.

        Raises:
            grpc.RpcError: one of them does not answer.
        """
        return describe_app(
            self.grpc_address, app_id, client=self.client, token=self.token, timeout_seconds=timeout_seconds
        )

    def get(self, path: str) -> dict[str, Any]:
        """What the REST API answers to a GET with the token, for example of "/api/deployments".

        Raises:
            DeploymentError: anything but 200.
        """
        request = urllib.request.Request(  # noqa: S310 - our own address
            f"{self.rest}{path}", headers={"Authorization": f"Bearer {self.token}"}
        )
        try:
            with _direct().open(request, timeout=30) as answer:
                found: dict[str, Any] = json.load(answer)
        except (URLError, ConnectionError, TimeoutError) as failure:
            raise DeploymentError(f"GET {path} was answered with: {failure}") from failure
        return found

    def start_controller(self) -> None:
        """Start it, also again after it was stopped or killed, and wait until it answers."""
        self.controller.start()
        self.controller.wait_until(self._is_healthy, f"answered at {self.rest}/healthz", seconds=READY_SECONDS)

    def start_agent(self, app_id: str) -> None:
        """Start it, also again after it was stopped or killed, and wait until the controller reaches it."""
        site = self.sites[app_id]
        site.agent.start()
        self.wait_for_agent(app_id)

    def wait_for_agent(self, app_id: str) -> None:
        """Wait until the controller reaches an agent and the agent its app."""
        site = self.sites[app_id]
        # The agent writes the file once it has a certificate and listens: until then nobody need ask.
        is_listening = (site.state_directory / "address").exists
        site.agent.wait_until(is_listening, "had a certificate and listened", seconds=READY_SECONDS)
        site.agent.wait_until(
            lambda: self._is_available(app_id), "described its app through the controller", seconds=READY_SECONDS
        )

    # ----------------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._stack.callback(self._ports.close)
        for app in self.apps:
            self.say(f"starting {app.app_id} ({app.recipe})")
            folder = self.directory / "apps" / app.app_id
            folder.mkdir(parents=True, exist_ok=True)
            self._stack.callback(app.close)
            app.start(folder)
        self.say("starting the controller")
        self._start_controller_first()
        for app in self.apps:
            self.say(f"starting the agent of {app.app_id}")
            self._start_agent_first(app)

    def _start_controller_first(self) -> None:
        rest, grpc_port, enrolment = (f"127.0.0.1:{self._ports.reserve()}" for _ in range(3))
        self.rest, self.grpc_address = f"http://{rest}", grpc_port
        agents = {app.app_id: f"127.0.0.1:{self._ports.reserve()}" for app in self.apps}
        private_directory(self.config_path.parent)
        config: Table = {
            "discovery": "static",
            "state_directory": self.config_path.parent / "state",
            "rest": {"listen": rest},
            "grpc": {"listen": grpc_port},
            "enrolment": {"listen": enrolment},
            "apps": [{"id": app.app_id, "agent": agents[app.app_id], "recipe": app.recipe} for app in self.apps],
        }
        write_atomically(self.config_path, to_toml(config).encode())
        self._stack.callback(self.controller.stop)
        self.start_controller()
        self.token = self._manage("token", "create", "deployment", *(f"--scope={scope}" for scope in SCOPES))
        client = private_directory(self.token_path.parent)
        self._manage("issue-client-certificate", CLIENT_NAME, f"--out={client}")
        write_atomically(self.token_path, self.token.encode() + b"\n")
        write_atomically(self.header_path, b"Authorization: Bearer " + self.token.encode() + b"\n")
        for app in self.apps:
            self._write_agent_config(app, agents[app.app_id], enrolment)

    def _write_agent_config(self, app: App, address: str, enrolment: str) -> None:
        folder = private_directory(self.directory / "agents" / app.app_id)
        config_path = folder / "agent.toml"
        join_token_path = folder / "join-token"
        state_directory = folder / "state"
        config: dict[str, Any] = {
            "app_id": app.app_id,
            "recipe": app.recipe,
            "listen": address,
            "state_directory": state_directory,
            "keep_previous_hours": 72,
            "controller": {"enrolment": enrolment, "renewal": self.grpc_address, "join_token_file": join_token_path},
            "recipe_settings": dict(app.recipe_settings()),
        }
        if (control := app.control()) is not None:
            config["app"] = dict(control)
        for name, value in self.agent_settings.get(app.app_id, {}).items():
            config[name] = {**config.get(name, {}), **value} if isinstance(value, Mapping) else value
        write_atomically(config_path, to_toml(config).encode())
        write_atomically(join_token_path, self._manage("join-token", app.app_id).encode() + b"\n")
        agent = Program(f"agent of {app.app_id}", app.agent_argv(config_path), directory=folder)
        self.sites[app.app_id] = Site(app, address, agent, config_path, state_directory)

    def _start_agent_first(self, app: App) -> None:
        self._stack.callback(self.sites[app.app_id].agent.stop)
        self.start_agent(app.app_id)

    def _manage(self, *arguments: str) -> str:
        argv: list[str | Path] = [script("mathison-controller"), *arguments, "--config", self.config_path]
        return run_command(argv, home=self.config_path.parent).strip()

    def _is_healthy(self) -> bool:
        try:
            with _direct().open(f"{self.rest}/healthz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (URLError, ConnectionError, TimeoutError):
            return False

    def _is_available(self, app_id: str) -> bool:
        with contextlib.suppress(grpc.RpcError):
            return self.describe(app_id, timeout_seconds=5).description.can_export
        return False


def _direct() -> urllib.request.OpenerDirector:
    """Not through a proxy that the caller's environment names."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


def write_demo_file(path: Path, deployment: Deployment) -> None:
    """Say in a file, for its owner only, how to reach a deployment."""
    write_atomically(path, json.dumps(deployment.to_json(), indent=2).encode() + b"\n")
