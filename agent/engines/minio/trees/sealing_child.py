"""The child that closes and opens the secrets in a tree; what it opens is an upload's, so that is done in a jail.

It is started by sealing_below.py, whose imports a child has no use for.
"""

from __future__ import annotations

import enum
import json
import sys

import msgspec

from agent import rights
from agent.engines.filesystem import is_full
from agent.engines.minio.drive.layout import BUCKETS, CONFIG
from agent.engines.minio.drive.remote_keys import buckets_with_keys, leave_out
from agent.jail import enter, parse_argv
from common.errors import NoSpaceError, ServiceError

_NEXT = "Make room on the drive, then try again."


class Work(enum.Enum):
    """What there is to do with users, and with the keys of other servers in the settings of buckets.

    Attributes:
        SEAL: seal both.
        LEAVE_OUT: take out the keys of other servers.
        LOOK: see which buckets have some, and leave all as it is.
        OPEN: open what is sealed.
    """

    SEAL = "seal"
    LEAVE_OUT = "leave out"
    LOOK = "look"
    OPEN = "open"


class Assignment(msgspec.Struct, kw_only=True):
    """What to do, on stdin: it holds secrets.

    Attributes:
        root: a descriptor of the tree.
        passphrases: the one to seal with, or those that may open.
    """

    work: Work
    root: int
    passphrases: list[str] = []


def main() -> None:
    """Do it, and print which buckets have keys of other servers; a failure that is an answer is printed as one."""
    jail, parent_pid, _ = parse_argv(sys.argv[1:])
    # Not above: the agent has no use for the library that this needs.
    from agent.engines.minio.trees.sealing import get_ready, open_sealed, seal_files

    assignment = msgspec.json.decode(sys.stdin.buffer.read(), type=Assignment)
    root, work = assignment.root, assignment.work
    get_ready()
    if work is Work.OPEN:
        rights.lock_into(root)
    enter(jail, parent_pid=parent_pid)
    if work is Work.OPEN:
        rights.keep(rights.DAC_OVERRIDE | rights.FOWNER)
    buckets: list[str] = []
    try:
        if work is Work.OPEN:
            open_sealed(root, assignment.passphrases)
        elif work is Work.LEAVE_OUT:
            buckets = leave_out(root)
        else:
            buckets = buckets_with_keys(root)
        if work is Work.SEAL:
            seal_files(root, assignment.passphrases[0], [CONFIG, *(f"{BUCKETS}/{name}" for name in buckets)])
        answer: dict[str, object] = {"buckets": buckets}
    except OSError as failure:
        if not is_full(failure):
            raise
        answer = _answer(
            NoSpaceError("The drive is full; users and keys are sealed and opened on it.", next_step=_NEXT)
        )
    except ServiceError as error:
        answer = _answer(error)
    print(json.dumps(answer))


def _answer(error: ServiceError) -> dict[str, object]:
    return {"reason": error.reason, "text": error.text, "next_step": error.next_step}


if __name__ == "__main__":
    main()
