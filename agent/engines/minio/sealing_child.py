"""The child that seals and opens files of a tree; what it opens is an upload's, so that is done in a jail."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from agent import rights
from agent.jail import NOBODY, TOOL, Jail, enter, parse_argv
from agent.processes import Command, run
from common.errors import InternalError, ServiceError, make_error

_MOST_BYTES = 32 << 20
_MEMORY_BYTES = 1 << 30


class Assignment(msgspec.Struct, kw_only=True):
    """What to do, on stdin: it holds secrets.

    Attributes:
        root: a descriptor of the tree.
        starts: paths below it to seal; none: open what is sealed.
        passphrases: the one to seal with, or those that may open.
    """

    root: int
    starts: list[str]
    passphrases: list[str]


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


def main() -> None:
    """Seal or open; a failure that is an answer is printed as one."""
    jail, parent_pid, _ = parse_argv(sys.argv[1:])
    # Not above: the agent has no use for the library that this needs.
    from agent.engines.minio.sealing import get_ready, open_sealed, seal_files

    assignment = msgspec.json.decode(sys.stdin.buffer.read(), type=Assignment)
    get_ready()
    if not assignment.starts:
        rights.lock_into(assignment.root)
    enter(jail, parent_pid=parent_pid)
    if not assignment.starts:
        rights.keep(rights.DAC_OVERRIDE | rights.FOWNER)
    try:
        if assignment.starts:
            files = seal_files(assignment.root, assignment.passphrases[0], assignment.starts)
        else:
            files = open_sealed(assignment.root, assignment.passphrases)
        answer: dict[str, object] = {"files": files}
    except ServiceError as error:
        answer = {"reason": error.reason, "text": error.text, "next_step": error.next_step}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
