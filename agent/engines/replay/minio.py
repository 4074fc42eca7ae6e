"""An archive of a MinIO gone through in a jail: no server is needed to know what it holds, and nothing is kept."""

from __future__ import annotations

import os

import msgspec

from agent.engines.replay.request import Replayed, Request
from agent.jail import NOBODY, Jail
from agent.processes import Command, run
from agent.rights import may_become_nobody
from common.errors import ArchiveDamagedError
from common.fingerprints import Fingerprint

_MEMORY_BYTES = 1 << 30


class Answer(msgspec.Struct):
    """What the child found.

    Attributes:
        fault: what does not hold together; empty: nothing.
    """

    fingerprint: Fingerprint
    fault: str = ""


async def replay(request: Request) -> Replayed:
    """The fingerprint of the objects in the archive, of either format.

    Raises:
        ArchiveDamagedError: content is missing that the archive speaks of.
        ToolFailedError: the archive cannot be read through.
    """
    descriptor = os.open(request.file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        jail = Jail(address_space_bytes=_MEMORY_BYTES, uid=NOBODY if may_become_nobody() else None)
        arguments = ["agent.engines.replay.minio_child", request.scheme]
        output = await run(Command(arguments, jail=jail, stdin=descriptor, is_module=True))
    finally:
        os.close(descriptor)
    answer = msgspec.json.decode(output, type=Answer)
    if answer.fault:
        raise ArchiveDamagedError(answer.fault)
    return Replayed(answer.fingerprint)
