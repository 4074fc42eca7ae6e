"""An archive of a MinIO gone through in a jail: no server is needed to know what it holds, and nothing is kept."""

from __future__ import annotations

import msgspec

from agent.engines.replay.minio_child import Answer
from agent.engines.replay.reading import read_through
from agent.engines.replay.request import Replayed, Request
from common.errors import make_error


async def replay(request: Request) -> Replayed:
    """The fingerprint of the objects in the archive, of either format.

    Raises:
        ArchiveDamagedError: content is missing that the archive speaks of, or a line of it cannot be read.
        ArchiveRefusedError: it holds what no export has.
        ToolFailedError: the archive cannot be read through.
    """
    output = await read_through(request.file, "agent.engines.replay.minio_child", request.scheme)
    answer = msgspec.json.decode(output, type=Answer)
    if answer.fault:
        raise make_error(answer.reason, answer.fault, next_step=answer.next_step)
    return Replayed(answer.fingerprint, unproven=answer.unproven)
