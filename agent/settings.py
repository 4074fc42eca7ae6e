"""What an agent is told: a TOML file, read once when it starts, checked, frozen, handed on.

The file names files with secrets and never holds one.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from agent.recipes.base import Limits
from common.addresses import Address
from common.credentials import check_app_id
from common.settings_files import SettingsError, read_toml


@dataclass(frozen=True)
class ControllerSettings:
    """Where the agent gets its certificate. The controller calls the agent; this is the only way round."""

    enrolment: str
    """host:port of the controller's port for agents without a certificate."""
    renewal: str
    """host:port of the controller's gRPC port, where the certificate is renewed before it ends."""
    join_token_file: Path | None = None
    """Holds the join token. Needed until the agent is enrolled, and again if its certificate ran out while it was off;
    a mounted secret as a rule, so nobody deletes it."""

    def __post_init__(self) -> None:
        _check_address("enrolment", self.enrolment)
        _check_address("renewal", self.renewal)


@dataclass(frozen=True)
class AppSettings:
    """How to stop and start the app on one machine, for imports that need it down. Argv lists, no shell.

    What a command leaves running must have left its session (setsid, systemctl, docker) and hold none of its outputs:
    the rest of its process group is ended when the command returns.
    """

    stop: tuple[str, ...]
    """Returns when the app has ended; has to succeed for an app that is not running."""
    start: tuple[str, ...]
    """Returns when the app was started."""
    timeout_seconds: float = 120.0
    """For each of the two. Longer than most databases take to stop; an import waits for it with the app down."""

    def __post_init__(self) -> None:
        if not self.stop or not self.start:
            raise ValueError("stop and start need a program")
        _check_positive("timeout_seconds", self.timeout_seconds)


@dataclass(frozen=True)
class AgentSettings:
    """All of an agent's settings; the tables of the file are the fields of its parts."""

    app_id: str
    """<workspace>.<name>, as the controller lists the app."""
    recipe: str
    """How this app's data is moved, for example "postgresql"."""
    controller: ControllerSettings
    listen: str = "127.0.0.1:9443"
    """host:port to serve on. Port 0: any free one; the chosen one is logged and written to state_directory/address."""
    state_directory: Path = Path("/var/lib/mathison-agent")
    """Key, journal and spool files; has to outlive the agent. Made with mode 0700. One agent at a time."""
    keep_previous_hours: float = 72.0
    """How long the data from before an import is kept for an undo. A weekend; it takes as much disk as the data."""
    keep_staged_minutes: float = 60.0
    """How long a verified import waits for its Restore before it is dropped. A person may look at the preview."""
    idle_seconds: float = 300.0
    """A caller that sends or takes nothing for so long loses its transfer, which would block all others."""
    stop_grace_seconds: float = 25.0
    """How long a restore may go on after SIGTERM. Below a pod's 30 s: we end transfers, not the kubelet."""
    app: AppSettings | None = None
    """Not given: the agent cannot stop the app, and imports that need it are refused."""
    limits: Limits = field(default_factory=Limits)
    """What an import may cost."""
    recipe_settings: dict[str, Any] = field(default_factory=dict)
    """The recipe's own; it checks them."""

    def __post_init__(self) -> None:
        check_app_id(self.app_id)
        _check_address("listen", self.listen)
        for name in ("keep_previous_hours", "keep_staged_minutes", "idle_seconds", "stop_grace_seconds"):
            _check_positive(name, getattr(self, name))
        for limit in dataclasses.fields(self.limits):
            _check_positive(f"limits.{limit.name}", getattr(self.limits, limit.name))

    @property
    def journal_directory(self) -> Path:
        return self.state_directory / "journal"

    @property
    def identity_directory(self) -> Path:
        return self.state_directory / "identity"

    @property
    def work_directory(self) -> Path:
        return self.state_directory / "work"

    @property
    def address_file(self) -> Path:
        return self.state_directory / "address"


def read_settings(path: Path) -> AgentSettings:
    """The settings in a file; relative paths in it are relative to the file.

    Raises:
        SettingsError: as `read_toml`; or a key is missing, of the wrong type, or makes no sense.
    """
    raw = read_toml(path, AgentSettings)

    def to_path(wanted: type, value: object) -> Path:
        if wanted is not Path or not isinstance(value, str):
            raise ValueError("Expected a path as text")
        return path.parent.resolve() / value

    try:
        return msgspec.convert(raw, AgentSettings, dec_hook=to_path)
    except msgspec.ValidationError as failure:
        # msgspec's text is "Expected `int`, got `str` - at `$.limits.entries`".
        problem, _, place = str(failure).partition(" - at `$.")
        where = f"{place.rstrip('`')}: " if place else ""
        raise SettingsError(f"{path}: {where}{problem}") from failure
    except ValueError as failure:
        raise SettingsError(f"{path}: {failure}") from failure


def _check_address(name: str, address: str) -> None:
    try:
        Address.parse(address)
    except ValueError as failure:
        raise ValueError(f"{name}: {failure}") from failure


def _check_positive(name: str, number: float) -> None:
    if not number > 0:
        raise ValueError(f"{name} has to be above 0, not {number}")
