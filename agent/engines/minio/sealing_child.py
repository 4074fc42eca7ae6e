"""The child that seals and opens files of a tree; what it opens is an upload's, so that is done in a jail.

It is started by sealing_below.py, whose imports a child has no use for.
"""

from __future__ import annotations

import json
import sys

import msgspec

from agent import rights
from agent.jail import enter, parse_argv
from common.errors import ServiceError


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
