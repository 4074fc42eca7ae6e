"""The jailed child that counts an upload's tree: its `xl.meta` are as hostile as the upload. A tally on stdout."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import msgspec

from agent import rights
from agent.engines.minio.census import Tally, count
from agent.jail import NOBODY, Jail, enter, parse_argv
from agent.processes import Command, run
from common.errors import InternalError, ServiceError, make_error

_MEMORY_BYTES = 1 << 30
_MAX_TALLY_BYTES = 64 << 20


class Assignment(msgspec.Struct, kw_only=True):
    """What to count: a descriptor of a directory, and the rest as `census.count` takes it."""

    root: int
    seconds: float | None
    only: str
    beside: str


async def count_in_jail(
    directory: Path, *, seconds: float | None = None, only: str = "", beside: Path | None = None
) -> Tally:
    """Go through a tree, as `census.count`.

    Args:
        beside: another tree below the directory, to compare it with.
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


def main() -> None:
    """Count; a failure that is an answer is printed as one."""
    jail, parent_pid, arguments = parse_argv(sys.argv[1:])
    assignment = msgspec.json.decode(arguments[0], type=Assignment)
    # What is imported late has to be there before the jail closes.
    msgspec.msgpack.decode(b"\x80")
    rights.lock_into(assignment.root)
    enter(jail, parent_pid=parent_pid)
    rights.keep(rights.DAC_OVERRIDE)
    answer: object
    try:
        answer = msgspec.to_builtins(
            count(assignment.root, seconds=assignment.seconds, only=assignment.only, beside=assignment.beside)
        )
    except ServiceError as error:
        answer = {"reason": error.reason, "text": error.text, "next_step": error.next_step}
    # The standard library's JSON: names may hold bytes that are no text.
    with open(1, "wb", closefd=False) as output:
        output.write(json.dumps(answer).encode())


if __name__ == "__main__":
    main()
