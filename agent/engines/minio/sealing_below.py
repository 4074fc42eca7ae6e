"""Files of a tree sealed and opened by a child: see sealing_child.py."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from agent import rights
from agent.engines.minio.sealing_child import Assignment
from agent.jail import NOBODY, TOOL, Jail
from agent.processes import Command, run
from common.errors import InternalError, make_error

_MOST_BYTES = 32 << 20
_MEMORY_BYTES = 1 << 30


async def seal_below(tree: Path, starts: Sequence[str], passphrase: str) -> int:
    """As `sealing.seal_files`."""
    return await _run(tree, starts, [passphrase], TOOL)


async def open_below(tree: Path, passphrases: Sequence[str]) -> int:
    """As `sealing.open_sealed`."""
    uid = NOBODY if rights.may_become_nobody() else None
    jail = Jail(file_size_bytes=_MOST_BYTES, address_space_bytes=_MEMORY_BYTES, uid=uid)
    return await _run(tree, [], passphrases, jail)


async def _run(tree: Path, starts: Sequence[str], passphrases: Sequence[str], jail: Jail) -> int:
    root = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        assignment = Assignment(root=root, starts=list(starts), passphrases=list(passphrases))
        command = Command(["agent.engines.minio.sealing_child"], jail=jail, pass_fds=(root,), is_module=True)
        output = await run(command, input_bytes=msgspec.json.encode(assignment))
    finally:
        os.close(root)
    try:
        answer = json.loads(output)
    except ValueError as failure:
        raise InternalError("The child that seals files said nothing.") from failure
    if "reason" in answer:
        raise make_error(answer["reason"], answer["text"], next_step=answer["next_step"])
    return int(answer["files"])
