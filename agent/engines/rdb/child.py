"""The jailed child of `agent.engines.rdb.examination`: an RDB file on stdin, lines of JSON about it on stdout."""

from __future__ import annotations

import enum
import errno
import os
import sys
import time

import msgspec

from agent.engines.rdb.content import RdbContent
from agent.engines.rdb.source import IN_SMALLER_PIECES
from agent.engines.rdb.summing import SummingWalk
from agent.engines.rdb.walk import Walk
from agent.jail import enter_from_argv
from common.errors import ServiceError
from common.rdb import RdbHeader

PROGRESS_SECONDS = 0.2


class Look(enum.Enum):
    """What is looked for."""

    COUNT = "count"
    """A server is writing the file just now: what is in it, counted."""
    SUM = "sum"
    """The same, and what its keys hold; see agent.engines.rdb.summing."""
    SUM_KEYS = "sum keys"
    """The same, and a digest of each key."""
    CHECK = "check"
    """Everything that could hurt the server that loads it."""


class Line(msgspec.Struct, omit_defaults=True):
    """One of: the magic was read; so far it is; all was read; it is to be refused."""

    flavour: str = ""
    version: int = 0
    keys: int = 0
    size_bytes: int = 0
    content: RdbContent | None = None
    reason: str = ""
    text: str = ""
    next_step: str = ""


def main() -> None:
    """Walk stdin; the last line has either `content` or `reason`."""
    wanted, spill = enter_from_argv()
    look = Look(wanted)
    told_at = time.monotonic()

    def tell_header(header: RdbHeader) -> None:
        _tell(Line(flavour=header.flavour, version=header.version))

    def tell_progress(keys: int, size_bytes: int) -> None:
        nonlocal told_at
        if time.monotonic() - told_at >= PROGRESS_SECONDS:
            told_at = time.monotonic()
            _tell(Line(keys=keys, size_bytes=size_bytes))

    def read(size: int) -> bytes:
        return os.read(0, size)

    if look in (Look.SUM, Look.SUM_KEYS):
        walk: Walk = SummingWalk(read, has_keys=look is Look.SUM_KEYS, on_header=tell_header, on_progress=tell_progress)
    else:
        walk = Walk(
            read,
            is_trusted=look is Look.COUNT,
            spill=int(spill) if look is Look.CHECK else None,
            on_header=tell_header,
            on_progress=tell_progress,
        )
    try:
        line = Line(content=walk.run())
    except ServiceError as error:
        line = Line(reason=error.reason, text=error.text, next_step=error.next_step)
    except MemoryError:
        line = Line(
            reason="LIMIT_EXCEEDED",
            text="One value of the file needs more memory than its check may use.",
            next_step=IN_SMALLER_PIECES,
        )
    except OSError as failure:
        if failure.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        line = Line(reason="NO_SPACE", text="There is no room on the agent's disk to compare the file's keys.")
    _tell(line)


def _tell(line: Line) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
