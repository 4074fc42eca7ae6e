"""A tar of a volume: its members are hashed as they are unpacked, in a jail, and nothing is kept."""

from __future__ import annotations

import msgspec

from agent.engines.replay.reading import read_through
from agent.engines.replay.request import Replayed, Request
from common.fingerprints import Fingerprint


async def replay(request: Request) -> Replayed:
    """The fingerprint of a volume that this archive would make.

    Raises:
        ToolFailedError: the archive cannot be read through.
    """
    answer = await read_through(request.file, "agent.engines.replay.volume_child", request.scheme)
    return Replayed(msgspec.json.decode(answer, type=Fingerprint))
