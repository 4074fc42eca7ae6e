"""A tar of a volume: its members are hashed as they are unpacked, in a jail, and nothing is kept."""

from __future__ import annotations

import os

import msgspec

from agent.engines.replay.request import Replayed, Request
from agent.jail import NOBODY, Jail
from agent.processes import Command, run
from agent.rights import may_become_nobody
from common.fingerprints import Fingerprint

_MEMORY_BYTES = 1 << 30


async def replay(request: Request) -> Replayed:
    """The fingerprint of a volume that this archive would make.

    Raises:
        ToolFailedError: the archive cannot be read through.
    """
    descriptor = os.open(request.file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        jail = Jail(address_space_bytes=_MEMORY_BYTES, uid=NOBODY if may_become_nobody() else None)
        arguments = ["agent.engines.replay.volume_child", request.scheme]
        answer = await run(Command(arguments, jail=jail, stdin=descriptor, is_module=True))
    finally:
        os.close(descriptor)
    return Replayed(msgspec.json.decode(answer, type=Fingerprint))
