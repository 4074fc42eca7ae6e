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
from cli.failures import UnverifiableError
from cli.inspecting import Inspection, inspect_file, open_archive
from cli.models import Fingerprint
from cli.session import Session
from common import fingerprints
from common.errors import make_error

_PROGRAM = "agent.engines.replay"


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints; no differences: it is proven."""

    file: str
    size_bytes: int
    sha256: str
    fingerprint: Fingerprint
    differences: tuple[str, ...]

    @property
    def exit_code(self) -> int | None:
        return int(ExitCode.DIFFERS) if self.differences else None


class _Answer(msgspec.Struct):
    fingerprint: fingerprints.Fingerprint | None = None
    reason: str = ""
    text: str = ""
    next_step: str = ""


async def verify_file(file: str, session: Session) -> Verification:
    """Inspect an archive, replay it, compare.

    Raises:
        ArchiveError: it is damaged.
        UnverifiableError: it carries no fingerprint, or cannot be replayed here.
    """
    with open_archive(file) as opened:
        inspection = await inspect_file(opened, Path(file), session)
    if inspection.error is not None:
        raise make_error(inspection.error.reason, inspection.error.message, next_step=inspection.error.next_step)
    expected = inspection.fingerprint
    if expected is None:
        raise UnverifiableError(
            f"{file} carries no fingerprint to be compared with.",
            next_step="SQL exports of PostgreSQL and exports of volumes and n8n have one, unless they were told not "
            "to; `mathison inspect` says whether the file is whole.",
        )
    with session.gauge() as gauge:
        gauge.enter("replaying", Path(file).name)
        found = await _replay(inspection, expected.scheme)
    return Verification(
        file=file,
        size_bytes=inspection.size_bytes,
        sha256=inspection.sha256,
        fingerprint=Fingerprint(scheme=expected.scheme, sha256=expected.sha256, parts=dict(expected.parts)),
        differences=tuple(expected.differences(found)),
    )


async def _replay(inspection: Inspection, scheme: str) -> fingerprints.Fingerprint:
    header = inspection.header
    request = {
        "file": str(Path(inspection.file).absolute()),
        "scheme": scheme,
        "engine_version": header.engine_version if header else "",
        "details": dict(header.details) if header else {},
    }
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-m", _PROGRAM, msgspec.json.encode(request).decode()),
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
    if answer.fingerprint is None:
        raise UnverifiableError(f"{inspection.file} cannot be replayed: {answer.text}", next_step=answer.next_step)
    return answer.fingerprint
