"""A process that can do little harm: no secrets in its environment, no new processes, no files, and no life after ours.

Uploads are hostile, so whatever parses one runs in here. Two ways in:

- a foreign program is started through confining.py as a script: `argv_in_jail(jail, argv)`; it sets the limits and
  becomes the program. (Limits set in a forked child of a gRPC process could deadlock: no `preexec_fn`.)
- a Python child of ours is started by `argv_of_module(jail, module, arguments)`; it imports everything it needs and
  then calls `enter_from_argv()`, before its first read of the upload. Nothing can be imported afterwards when root gave
  up its rights: the interpreter may lie where nobody else can read.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from agent import confining

NOBODY = 65534


@dataclass(frozen=True)
class Jail:
    """What a child may do.

    Attributes:
        file_size_bytes: largest file it may write (RLIMIT_FSIZE); 0: none.
        address_space_bytes: RLIMIT_AS; None: not limited, for programs that map much and use little.
        may_fork: False sets RLIMIT_NPROC to 0, which also forbids threads; without effect for root, so a child that
            stays root should not be given an upload.
        uid: user to become when we are root and may change our user, see `confining`; None: stay who we are.
    """

    file_size_bytes: int | None = 0
    address_space_bytes: int | None = None
    may_fork: bool = False
    uid: int | None = NOBODY


TOOL = Jail(file_size_bytes=None, may_fork=True, uid=None)
"""Not a jail: only what every child gets, above all the signal when its parent dies."""
PARSER = Jail()
"""For foreign programs that read an upload and write to a pipe or a socket."""


def argv_in_jail(jail: Jail, argv: Sequence[str]) -> list[str]:
    """The argv that starts `argv` inside the jail; costs one start of Python without its site (about 10 ms)."""
    return [sys.executable, "-I", "-S", os.path.abspath(confining.__file__), *_words(jail), *argv]


def argv_of_module(jail: Jail, module: str, arguments: Sequence[str] = ()) -> list[str]:
    """The argv that starts a module of ours, which has to call `enter_from_argv` to be confined."""
    return [sys.executable, "-I", "-m", module, *_words(jail), *arguments]


def enter_from_argv() -> list[str]:
    """Confine this process as the argv of `argv_of_module` says; returns the arguments meant for the module."""
    jail, parent_pid, arguments = parse_argv(sys.argv[1:])
    enter(jail, parent_pid=parent_pid)
    return arguments


def enter(jail: Jail, *, parent_pid: int) -> None:
    """Confine this process. Irreversible.

    Args:
        parent_pid: the process that started us; when it is gone already we end at once.
    """
    confining.confine(parent_pid, jail.file_size_bytes, jail.address_space_bytes, jail.may_fork, jail.uid)


def parse_argv(argv: Sequence[str]) -> tuple[Jail, int, list[str]]:
    """Jail, parent and arguments from an argv without its first; for who has to do something before `enter`."""
    parent_pid, file_size, address_space, may_fork, uid = confining.limits_of(list(argv[: confining.LIMITS]))
    return Jail(file_size, address_space, may_fork, uid), parent_pid, list(argv[confining.LIMITS :])


def _words(jail: Jail) -> list[str]:
    return confining.words_of(os.getpid(), jail.file_size_bytes, jail.address_space_bytes, jail.may_fork, jail.uid)
