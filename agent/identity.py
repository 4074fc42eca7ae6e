"""Keeps the agent's certificate good for as long as it runs, by running `agent.enrolment` when it is time."""

from __future__ import annotations

import datetime as dt
import hashlib
import sys
from pathlib import Path
from typing import Protocol

import msgspec
import structlog

from agent.clock import Clock
from agent.processes import Command, run
from agent.settings import AgentSettings
from common.credentials import IdentityFiles
from common.errors import ToolFailedError
from common.files import write_atomically

PAUSES_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Before each further attempt; the last for ever. The controller may start after its agents."""
_LONGEST_SLEEP_SECONDS = 60.0
"""A machine's clock may be set, and a machine may sleep, so a moment far away is looked at again and again."""
_log = structlog.get_logger(__name__)


class Outcome(msgspec.Struct, frozen=True):
    """What the program prints, as JSON: one of the two is set."""

    renew_at: dt.datetime | None = None
    """The identity's files are good; when to run it again."""
    obstacle: str = ""
    """Why there is no certificate, or no new one. Never a secret."""


class Enrolment(Protocol):
    """One attempt to have a good certificate."""

    async def __call__(self) -> Outcome: ...


class _Renewal(msgspec.Struct, frozen=True):
    """What stands beside the identity, so that a start need not run the program only to learn that all is well, and
    that the agent need not check the files, which would have it hold a TLS library of Python's beside gRPC's."""

    app_id: str
    files_sha256: str
    renew_at: dt.datetime


def identity_files(directory: Path) -> IdentityFiles:
    """The identity's files for an agent that serves: those that were noted are not checked anew."""

    def were_checked(identity: bytes, authorities: bytes) -> bool:
        renewal = _noted(directory)
        return renewal is not None and renewal.files_sha256 == _digest(identity, authorities)

    return IdentityFiles(directory, were_checked=were_checked)


def note_renewal(files: IdentityFiles, app_id: str, renew_at: dt.datetime) -> None:
    """Check the identity that is there, and remember until when it needs nothing.

    Raises:
        ValueError: it cannot be used.
    """
    found = files.read()
    files.load()
    renewal = _Renewal(app_id, _digest(*found) if found else "", renew_at)
    write_atomically(_path(files.directory), msgspec.json.encode(renewal))


def noted_renewal(files: IdentityFiles, app_id: str) -> dt.datetime | None:
    """What was noted, if it was for the identity that is there now and for this app."""
    renewal, found = _noted(files.directory), files.read()
    if renewal is None or found is None:
        return None
    is_same = (renewal.app_id, renewal.files_sha256) == (app_id, _digest(*found))
    return renewal.renew_at if is_same else None


def _noted(directory: Path) -> _Renewal | None:
    try:
        return msgspec.json.decode(_path(directory).read_bytes(), type=_Renewal)
    except (OSError, ValueError):
        return None


def _path(directory: Path) -> Path:
    return directory / "renewal.json"


def _digest(identity: bytes, authorities: bytes) -> str:
    return hashlib.sha256(b"%d %b %b" % (len(identity), identity, authorities)).hexdigest()


def enrolment_program(settings_path: Path, settings: AgentSettings, clock: Clock) -> Enrolment:
    """An attempt by the program, which reads the same settings; without it when nothing is due."""
    files = identity_files(settings.identity_directory)

    async def attempt() -> Outcome:
        renew_at = noted_renewal(files, settings.app_id)
        if renew_at is not None and clock.now() < renew_at:
            return Outcome(renew_at=renew_at)
        argv = [sys.executable, "-m", "agent.enrolment", str(settings_path)]
        try:
            return msgspec.json.decode(await run(Command(argv)), type=Outcome)
        except (ToolFailedError, ValueError) as failure:
            return Outcome(obstacle=f"The enrolment program failed: {failure}")

    return attempt


class IdentityKeeper:
    """Waits for the first certificate, and renews it."""

    def __init__(self, enrol: Enrolment, clock: Clock) -> None:
        self._enrol = enrol
        self._clock = clock
        self._renew_at: dt.datetime | None = None

    async def provide(self) -> None:
        """Return once there is a good certificate, however long that takes."""
        attempts = 0
        while True:
            outcome = await self._enrol()
            if outcome.renew_at is not None:
                self._renew_at = outcome.renew_at
                _log.info("The certificate is good.", action="enrol", renew_at=outcome.renew_at.isoformat())
                return
            pause = PAUSES_SECONDS[min(attempts, len(PAUSES_SECONDS) - 1)]
            attempts += 1
            _log.warning(
                "There is no certificate, or no new one, yet; it is tried again.",
                action="enrol",
                obstacle=outcome.obstacle,
                attempts=attempts,
                pause_seconds=pause,
            )
            await self._clock.sleep(pause)

    async def run(self) -> None:
        """Renew when it is time, for ever."""
        while True:
            seconds = (self._renew_at - self._clock.now()).total_seconds() if self._renew_at else 0.0
            await self._clock.sleep(min(max(seconds, PAUSES_SECONDS[0]), _LONGEST_SLEEP_SECONDS))
            if self._renew_at is None or self._clock.now() >= self._renew_at:
                await self.provide()
