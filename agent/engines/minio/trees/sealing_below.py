"""The secrets in a tree, closed and opened by a child: see sealing_child.py."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from agent.engines.minio.trees.sealing_child import Assignment, Work
from agent.jail import TOOL, Jail
from agent.processes import Command, run
from common.errors import InternalError, make_error

_MOST_BYTES = 32 << 20
_MEMORY_BYTES = 1 << 30


async def close_below(tree: Path, work: Work, passphrase: str = "") -> list[str]:
    """Do with a snapshot's secrets what is to be done; the buckets whose settings hold keys of other servers, or did.

    Args:
        passphrase: to seal with.
    Raises:
        SourceUnreadableError: as `sealing.seal_files` and `remote_keys.leave_out`.
        NoSpaceError: the drive is full.
    """
    return await _run(tree, work, [passphrase], TOOL)


async def open_below(tree: Path, passphrases: Sequence[str]) -> None:
    """As `sealing.open_sealed`."""
    jail = Jail(file_size_bytes=_MOST_BYTES, address_space_bytes=_MEMORY_BYTES)
    await _run(tree, Work.OPEN, passphrases, jail)


async def _run(tree: Path, work: Work, passphrases: Sequence[str], jail: Jail) -> list[str]:
    root = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        assignment = Assignment(work=work, root=root, passphrases=list(passphrases))
        command = Command(["agent.engines.minio.trees.sealing_child"], jail=jail, pass_fds=(root,), is_module=True)
        output = await run(command, input_bytes=msgspec.json.encode(assignment))
    finally:
        os.close(root)
    try:
        answer = json.loads(output)
    except ValueError as failure:
        raise InternalError("The child that seals files said nothing.") from failure
    if "reason" in answer:
        raise make_error(answer["reason"], answer["text"], next_step=answer["next_step"])
    return list(answer["buckets"])
