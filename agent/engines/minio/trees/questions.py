"""Has a jailed child look at a tree: see answers.py."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TypeVar

import msgspec

from agent.jail import Jail
from agent.processes import Command, run
from common.errors import InternalError, make_error

Answer = TypeVar("Answer")

_MEMORY_BYTES = 1 << 30
_MAX_ANSWER_BYTES = 64 << 20


async def ask(module: str, directory: Path, request: msgspec.Struct, answer_type: type[Answer]) -> Answer:
    """The answer of a child.

    Args:
        module: a child's, which calls `answers.answer`.
    Raises:
        ServiceError: what the child's look raises.
        ToolFailedError: the child was killed.
    """
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        command = Command(
            [module, str(root), msgspec.json.encode(request).decode()],
            jail=Jail(address_space_bytes=_MEMORY_BYTES),
            pass_fds=(root,),
            is_module=True,
        )
        output = await run(command, most_bytes=_MAX_ANSWER_BYTES)
    finally:
        os.close(root)
    try:
        answer = json.loads(output)
        if "reason" in answer:
            raise make_error(answer["reason"], answer["text"], next_step=answer["next_step"])
        return msgspec.convert(answer, answer_type)
    except (ValueError, TypeError) as failure:
        raise InternalError(f"What {module} found cannot be read.") from failure
