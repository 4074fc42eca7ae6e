"""A tar of a volume: its members are hashed as they are unpacked, in a jail, and nothing is kept."""

from __future__ import annotations

import os
import tempfile

import msgspec

from agent.archives.members import printable
from agent.confining import may_become_nobody
from agent.engines.filesystem import DIRECTORY
from agent.engines.replay.reading import read_through
from agent.engines.replay.request import Replayed, Request
from agent.engines.replay.volume_child import Answer
from agent.jail import NOBODY
from agent.limits import Limits
from common.errors import make_error

_UNPROVEN = (
    "Owners, times and extended attributes are in no fingerprint, and what the export warned of, such as files that "
    "changed while they were read, stands in its answer and not in the file."
)


async def replay(request: Request) -> Replayed:
    """The fingerprint of a volume that this archive would make.

    Raises:
        ServiceError: an import refuses it, by the same reason; but for what depends on the app's present data or on
            options, as links out of the volume do.
    """
    with tempfile.TemporaryDirectory(prefix="mathison-verify-") as name:
        if may_become_nobody():
            os.chown(name, NOBODY, -1)
        root = os.open(name, DIRECTORY)
        try:
            arguments = (request.scheme, str(root), str(Limits().entries))
            output = await read_through(request.file, "agent.engines.replay.volume_child", *arguments, pass_fds=(root,))
        finally:
            os.close(root)
    answer = msgspec.json.decode(output, type=Answer)
    if answer.fingerprint is None:
        raise make_error(answer.reason, answer.text, next_step=answer.next_step)
    left_out = request.details.get("excluded")
    unproven = f"{_UNPROVEN} Left out by the agent's settings: {printable(left_out)}." if left_out else _UNPROVEN
    return Replayed(answer.fingerprint, unproven=unproven)
