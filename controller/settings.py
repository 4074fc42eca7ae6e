"""What the controller is told, from one TOML file, read once at the start; only `apps` is read again, on SIGHUP.

Every key that is not known and every value of the wrong type is an error that names the key.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from common.addresses import Address
from common.credentials import check_app_id
from common.settings_files import SettingsError, read_toml


class RestSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The REST API."""

    listen: str = "127.0.0.1:8080"
    """host:port; port 0 takes any. Other machines are let in on purpose only, and then over HTTPS."""
    tls_certificate_file: str = ""
    """PEM, leaf first. Empty: plain HTTP, for loopback or behind something that speaks HTTPS."""
    tls_key_file: str = ""


class GrpcSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The gRPC port of programs and of agents that renew; mutual TLS always."""

    listen: str = "127.0.0.1:8443"


class EnrolmentSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The gRPC port where agents get their first certificate; TLS without client certificates."""

    listen: str = "127.0.0.1:8444"


class LimitSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What callers may cost."""

    upload_bytes: int = 1 << 40
    """Largest archive that is passed on to an agent."""
    stalled_caller_seconds: float = 600.0
    """A REST caller that takes or sends nothing for so long is dropped: its transfer keeps a snapshot open in the app's
    database and every other transfer of the app waiting."""
    rest_connections: int = 1000
    """Open at once to the REST port; half of the process's limit of open files where that is less. One more is answered
    503."""
    idle_connection_seconds: float = 60.0
    """How long a REST connection may take to send a request's whole header, from its beginning or from the last answer;
    then it is closed."""
    stop_grace_seconds: float = 20.0
    """How long running calls may go on after SIGTERM; below the 30 s after which Kubernetes kills."""
    agent_keepalive_seconds: float = 30.0
    """Silence on an agent's connection after which it is asked for a sign of life; as long again without one ends its
    calls."""


class AppSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One app and where its agent listens."""

    id: str
    """"<workspace>.<name>"."""
    agent: str
    """host:port."""
    recipe: str = ""
    """Shown while the agent does not answer; the agent itself knows."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    discovery: Literal["static"] = "static"
    state_directory: str = "/var/lib/mathison-controller"
    """CA, tokens, join tokens, audit log; made with mode 0700. One running controller at a time. Paths are relative to
    the settings file."""
    rest: RestSettings = RestSettings()
    grpc: GrpcSettings = GrpcSettings()
    enrolment: EnrolmentSettings = EnrolmentSettings()
    limits: LimitSettings = LimitSettings()
    apps: tuple[AppSettings, ...] = ()

    @property
    def state(self) -> Path:
        return Path(self.state_directory)


def load_settings(path: Path) -> Settings:
    """Read and check the file.

    Raises:
        SettingsError: it cannot be read, is not TOML, or a key is unknown, of the wrong type or makes no sense.
    """
    raw = read_toml(path, Settings)
    try:
        settings = msgspec.convert(raw, Settings)
        _check(settings)
        return _resolve(settings, path.parent.resolve())
    except (ValueError, msgspec.ValidationError) as failure:
        raise SettingsError(f"{path}: {str(failure).replace('`$.', '`')}.") from failure


def _check(settings: Settings) -> None:
    for key in ("rest", "grpc", "enrolment"):
        _check_address(getattr(settings, key).listen, key=f"{key}.listen")
    if bool(settings.rest.tls_certificate_file) != bool(settings.rest.tls_key_file):
        raise ValueError("`rest.tls_certificate_file` and `rest.tls_key_file` are given together or not at all")
    for name in LimitSettings.__struct_fields__:
        if getattr(settings.limits, name) <= 0:
            raise ValueError(f"`limits.{name}` has to be more than 0")
    seen: set[str] = set()
    for index, app in enumerate(settings.apps):
        try:
            check_app_id(app.id)
        except ValueError as failure:
            raise ValueError(f"{failure} - at `apps[{index}].id`") from failure
        if app.id in seen:
            raise ValueError(f"{app.id!r} is there twice - at `apps[{index}].id`")
        seen.add(app.id)
        _check_address(app.agent, key=f"apps[{index}].agent")


def _resolve(settings: Settings, directory: Path) -> Settings:
    rest = settings.rest
    if rest.tls_certificate_file:
        rest = msgspec.structs.replace(
            rest,
            tls_certificate_file=str(directory / rest.tls_certificate_file),
            tls_key_file=str(directory / rest.tls_key_file),
        )
    return msgspec.structs.replace(settings, rest=rest, state_directory=str(directory / settings.state_directory))


def _check_address(text: str, *, key: str) -> None:
    try:
        Address.parse(text)
    except ValueError as failure:
        raise ValueError(f"{failure} - at `{key}`") from failure
