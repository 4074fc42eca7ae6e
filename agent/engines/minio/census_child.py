"""The jailed child that counts an upload's tree: its `xl.meta` are as hostile as the upload. A tally on stdout.

It is started by counting.py, whose imports a child has no use for.
"""

from __future__ import annotations

import json
import sys

import msgspec

from agent import rights
from agent.engines.minio.census import count
from agent.jail import enter, parse_argv
from common.errors import ServiceError


class Assignment(msgspec.Struct, kw_only=True):
    """What to count: a descriptor of a directory, and the rest as `census.count` takes it."""

    root: int
    seconds: float | None
    only: str
    beside: str
    proves: bool


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
            count(
                assignment.root,
                seconds=assignment.seconds,
                only=assignment.only,
                beside=assignment.beside,
                proves=assignment.proves,
            )
        )
    except ServiceError as error:
        answer = {"reason": error.reason, "text": error.text, "next_step": error.next_step}
    # The standard library's JSON: names may hold bytes that are no text.
    with open(1, "wb", closefd=False) as output:
        output.write(json.dumps(answer).encode())


if __name__ == "__main__":
    main()
