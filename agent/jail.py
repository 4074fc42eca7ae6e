"""A process that can do little harm: no secrets in its environment, no new processes, no files, and no life after ours.

Uploads are hostile, so whatever parses one runs in here. Two ways in:

- a foreign program is started through this file as a script: `argv_in_jail(jail, argv)`; it sets the limits and becomes
  the program. (Limits set in a forked child of a gRPC process could deadlock: no `preexec_fn`.)
- a Python child of ours is started by `argv_of_module(jail, module, arguments)`; it imports everything it needs and
  then calls `enter_from_argv()`, before its first read of the upload. Nothing can be imported afterwards when root gave
  up its rights: the interpreter may lie where nobody else can read.

Standard library only: the script is run with `python -I -S`.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import resource
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass

NOBODY = 65534
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38


@dataclass(frozen=True)
class Jail:
    """What a child may do.

    Attributes:
        file_size_bytes: largest file it may write (RLIMIT_FSIZE); 0: none.
        address_space_bytes: RLIMIT_AS; None: not limited, for programs that map much and use little.
        may_fork: False sets RLIMIT_NPROC to 0, which also forbids threads; without effect for root, so a child that
            stays root should not be given an upload.
        uid: user to become when we are root; None: stay who we are.
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
    return [sys.executable, "-I", "-S", os.path.abspath(__file__), *_options(jail), "--", *argv]


def argv_of_module(jail: Jail, module: str, arguments: Sequence[str] = ()) -> list[str]:
    """The argv that starts a module of ours, which has to call `enter_from_argv` to be confined."""
    return [sys.executable, "-I", "-m", module, *_options(jail), "--", *arguments]


def enter_from_argv() -> list[str]:
    """Confine this process as the argv of `argv_of_module` says; returns the arguments meant for the module."""
    jail, parent_pid, arguments = parse_argv(sys.argv[1:])
    enter(jail, parent_pid=parent_pid)
    return arguments


def _options(jail: Jail) -> list[str]:
    options = [f"--parent={os.getpid()}"]
    if jail.file_size_bytes is not None:
        options.append(f"--file-size={jail.file_size_bytes}")
    if jail.address_space_bytes is not None:
        options.append(f"--address-space={jail.address_space_bytes}")
    if not jail.may_fork:
        options.append("--no-fork")
    if jail.uid is not None:
        options.append(f"--uid={jail.uid}")
    return options


def enter(jail: Jail, *, parent_pid: int) -> None:
    """Confine this process. Irreversible.

    Args:
        parent_pid: the process that started us; when it is gone already we end at once.
    """
    if jail.uid is not None and os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(jail.uid, jail.uid, jail.uid)
        os.setresuid(jail.uid, jail.uid, jail.uid)
    libc = ctypes.CDLL(None, use_errno=True)
    # After the change of user, which clears it.
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) or libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent_pid:
        os._exit(1)
    _limit(resource.RLIMIT_CORE, 0)
    if jail.file_size_bytes is not None:
        _limit(resource.RLIMIT_FSIZE, jail.file_size_bytes)
    if jail.address_space_bytes is not None:
        _limit(resource.RLIMIT_AS, jail.address_space_bytes)
    if not jail.may_fork:
        _limit(resource.RLIMIT_NPROC, 0)


def _limit(what: int, most: int) -> None:
    hard = resource.getrlimit(what)[1]
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(what, (most, most))


def parse_argv(argv: Sequence[str]) -> tuple[Jail, int, list[str]]:
    """Jail, parent and arguments from an argv without its first; for who has to do something before `enter`."""
    parser = argparse.ArgumentParser(description="Confine a program and become it.")
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--file-size", type=int)
    parser.add_argument("--address-space", type=int)
    parser.add_argument("--no-fork", action="store_true")
    parser.add_argument("--uid", type=int)
    parser.add_argument("argv", nargs="*")
    options = parser.parse_args(argv)
    jail = Jail(
        file_size_bytes=options.file_size,
        address_space_bytes=options.address_space,
        may_fork=not options.no_fork,
        uid=options.uid,
    )
    return jail, options.parent, options.argv


def _find(program: str) -> str:
    """Its path by PATH; the name itself where it has a slash or is not there."""
    if os.sep in program:
        return program
    paths = (os.path.join(folder, program) for folder in os.get_exec_path())
    return next((path for path in paths if os.access(path, os.X_OK)), program)


def main() -> None:
    """Entry point of the script: set the limits, then become the program."""
    jail, parent_pid, argv = parse_argv(sys.argv[1:])
    # Found before rights are given up: from then on Python cannot count on reaching even its own library.
    program = _find(argv[0])
    try:
        enter(jail, parent_pid=parent_pid)
        os.execve(program, argv, os.environ)  # noqa: S606
    except OSError as failure:
        print(f"cannot start {argv[0]}: {failure.strerror}", file=sys.stderr)
        os._exit(127)


if __name__ == "__main__":
    main()
