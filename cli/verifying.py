"""`mathison verify`: an export is replayed into a throw-away engine, and what that holds compared with its fingerprint.

The engines are the agent's; its own program for this is started, so that a fault or a hostile file stays in there.
"""

# ruff: noqa: TID251  # what it starts is the agent's program, which no part of the agent is imported for

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

import msgspec

from cli.exit_codes import ExitCode
from cli.failures import LocalFileError, UnverifiableError, said_by
from cli.inspecting import Inspection, inspect_file, open_archive
from cli.models import Fingerprint
from cli.session import Session
from common import fingerprints
from common.errors import ArchiveDamagedError, make_error

_PROGRAM = "agent.engines.replay"
_ANOTHER_FILE = (
    "That nobody made a second content for this fingerprint on purpose: {told} tells of another file, whose SHA-256 is "
    "{sha256}."
)


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints; no differences: it is proven. `engine` is empty where it was read through without one.

    Attributes:
        unproven: sentences about what could not be looked at, is not held as the app had it, or stands on the
            fingerprint of another file; empty: nothing.
    """

    file: str
    size_bytes: int
    sha256: str
    fingerprint: Fingerprint
    engine: str
    differences: tuple[str, ...]
    unproven: str = ""

    @property
    def exit_code(self) -> int | None:
        return int(ExitCode.DIFFERS) if self.differences else None


class Told(msgspec.Struct, frozen=True):
    """What was said of an export.

    Attributes:
        sha256: of its file; empty: it was not said.
    """

    fingerprint: fingerprints.Fingerprint
    sha256: str = ""


class _Found(msgspec.Struct):
    """What was found, and in which engine."""

    fingerprint: fingerprints.Fingerprint
    engine: str
    unproven: str


class _Answer(msgspec.Struct):
    fingerprint: fingerprints.Fingerprint | None = None
    engine: str = ""
    unproven: str = ""
    reason: str = ""
    text: str = ""
    next_step: str = ""


async def verify_file(file: str, session: Session, *, told: str = "") -> Verification:
    """Inspect an archive, replay it, compare.

    Args:
        told: a file with the fingerprint, for archives that carry none; see `read_told`.
    Raises:
        ArchiveError: it is damaged.
        UnverifiableError: it carries no fingerprint, or cannot be replayed here.
    """
    outside = read_told(told) if told else None
    with open_archive(file) as opened:
        inspection = await inspect_file(opened, Path(file), session)
    if inspection.error is not None:
        raise make_error(inspection.error.reason, inspection.error.message, next_step=inspection.error.next_step)
    expected = outside.fingerprint if outside else inspection.fingerprint
    if expected is None:
        raise UnverifiableError(
            f"{file} carries no fingerprint to be compared with.",
            next_step="Exports of PostgreSQL, MariaDB, volumes, MinIO, n8n and Uptime Kuma carry one, unless "
            "told not to. For others, name a file with what `mathison export --json` said, by --fingerprint. "
            "`mathison inspect` says whether the file is whole.",
        )
    with session.gauge() as gauge:
        gauge.enter("replaying", Path(file).name)
        found = await _replay(inspection, expected.scheme)
    differences = expected.differences(found.fingerprint)
    unproven = [found.unproven] if found.unproven else []
    if outside and outside.sha256 not in ("", inspection.sha256) and not differences:
        unproven.insert(0, _ANOTHER_FILE.format(told=told, sha256=outside.sha256))
    return Verification(
        file=file,
        size_bytes=inspection.size_bytes,
        sha256=inspection.sha256,
        fingerprint=Fingerprint(scheme=expected.scheme, sha256=expected.sha256, parts=dict(expected.parts)),
        engine=found.engine,
        differences=tuple(differences),
        unproven=" ".join(unproven),
    )


def read_told(file: str) -> Told:
    """From what `mathison export --json`, `fingerprint --json` or `verify --json` printed, or from a fingerprint alone.

    Raises:
        LocalFileError: it cannot be read. UnverifiableError: there is none in it.
    """
    try:
        content = Path(file).read_bytes()
    except OSError as failure:
        raise LocalFileError(f"{file} cannot be read: {said_by(failure)}.") from failure
    with contextlib.suppress(msgspec.MsgspecError):
        return msgspec.json.decode(content, type=Told)
    with contextlib.suppress(msgspec.MsgspecError):
        return Told(fingerprints.Fingerprint.from_json(content))
    raise UnverifiableError(
        f"There is no fingerprint in {file}.",
        next_step="Exports of large Redis servers take one with --option fingerprint=yes.",
    )


async def _replay(inspection: Inspection, scheme: str) -> _Found:
    header = inspection.header
    request = {
        "scheme": scheme,
        "engine_version": header.engine_version if header else "",
        "details": dict(header.details) if header else {},
    }
    file = str(Path(inspection.file).absolute())
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-m", _PROGRAM, msgspec.json.encode(request).decode(), file),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        output, said = await child.communicate()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
        await child.wait()
        raise
    try:
        answer = msgspec.json.decode(output, type=_Answer)
    except msgspec.MsgspecError as failure:
        last = said.decode(errors="replace").strip().rpartition("\n")[2][:200]
        raise UnverifiableError(f"The replay ended without a result: {last or 'it was killed'}.") from failure
    if answer.reason == ArchiveDamagedError.reason:
        raise make_error(answer.reason, answer.text, next_step=answer.next_step)
    if answer.fingerprint is None:
        raise UnverifiableError(f"{inspection.file} cannot be replayed: {answer.text}", next_step=answer.next_step)
    return _Found(answer.fingerprint, answer.engine, answer.unproven)
