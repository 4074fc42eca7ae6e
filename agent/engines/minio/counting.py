"""A tree counted by a jailed child: see census_child.py."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec

from agent import rights
from agent.engines.minio.census import Tally
from agent.engines.minio.census_child import Assignment
from agent.jail import NOBODY, Jail
from agent.processes import Command, run
from common.errors import InternalError, make_error

_MEMORY_BYTES = 1 << 30
_MAX_TALLY_BYTES = 64 << 20


async def count_in_jail(
    directory: Path,
    *,
    seconds: float | None = None,
    only: str = "",
    beside: Path | None = None,
    proves: bool = False,
) -> Tally:
    """Go through a tree, as `census.count`.

    Args:
        beside: another tree below the directory, to compare it with.
        proves: read the contents too, with their sums.
    Raises:
        ServiceError: what the tree's walk raises.
        ToolFailedError: the child was killed.
    """
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        assignment = Assignment(
            root=root,
            seconds=seconds,
            only=only,
            beside=str(beside.relative_to(directory)) if beside else "",
            proves=proves,
        )
        command = Command(
            ["agent.engines.minio.census_child", msgspec.json.encode(assignment).decode()],
            jail=Jail(address_space_bytes=_MEMORY_BYTES, uid=NOBODY if rights.may_become_nobody() else None),
            pass_fds=(root,),
            is_module=True,
        )
        output = await run(command, most_bytes=_MAX_TALLY_BYTES)
    finally:
        os.close(root)
    try:
        answer = json.loads(output)
        if "reason" in answer:
            raise make_error(answer["reason"], answer["text"], next_step=answer["next_step"])
        return msgspec.convert(answer, Tally)
    except (ValueError, TypeError) as failure:
        raise InternalError("The count of a drive cannot be read.") from failure
