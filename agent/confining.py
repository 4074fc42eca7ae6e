"""What a child does to itself in a jail, and the script through which a foreign program is started in one.

    python -I -S confining.py LIMIT... PROGRAM ARGUMENT...

Every child pays for what this file imports, an import into MariaDB a hundred times: so no argparse, dataclasses or
signal, which cost three times the start of Python itself (measured with 3.11).
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys

LIMITS = 5
"""Words on argv before the program: parent's pid, file size, address space, 1 when it may fork, user; or NONE."""
NONE = "-"
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_SIGKILL = 9
_SETGID, _SETUID = (1 << number for number in (6, 7))
CAPABILITIES_VERSION = 0x20080522


def confine(
    parent_pid: int, file_size_bytes: int | None, address_space_bytes: int | None, may_fork: bool, uid: int | None
) -> None:
    """Confine this process; what each limit means: `agent.jail.Jail`. Irreversible.

    Args:
        parent_pid: the process that started us; when it is gone already we end at once.
    """
    if uid is not None and may_become_nobody():
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    libc = ctypes.CDLL(None, use_errno=True)
    # After the change of user, which clears it.
    if libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0) or libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent_pid:
        os._exit(1)
    _limit(resource.RLIMIT_CORE, 0)
    if file_size_bytes is not None:
        _limit(resource.RLIMIT_FSIZE, file_size_bytes)
    if address_space_bytes is not None:
        _limit(resource.RLIMIT_AS, address_space_bytes)
    if not may_fork:
        _limit(resource.RLIMIT_NPROC, 0)


def may_become_nobody() -> bool:
    """Whether we are root and may change our user; a container's root may have been left without."""
    return os.geteuid() == 0 and permitted_rights() & (_SETGID | _SETUID) == _SETGID | _SETUID


def permitted_rights() -> int:
    """The capabilities that this process may use, a bit each."""
    header, data = (ctypes.c_uint32 * 2)(CAPABILITIES_VERSION, 0), (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capget(ctypes.byref(header), ctypes.byref(data)):
        raise OSError(ctypes.get_errno(), "capget")
    return int(data[1])


def words_of(*limits: int | None) -> list[str]:
    """The arguments of `confine` for argv."""
    return [NONE if limit is None else f"{limit:d}" for limit in limits]


def limits_of(words: list[str]) -> tuple[int, int | None, int | None, bool, int | None]:
    """The arguments of `confine` from argv."""
    parent_pid, file_size, address_space, may_fork, uid = (None if word == NONE else int(word) for word in words)
    return parent_pid or 0, file_size, address_space, bool(may_fork), uid


def _limit(what: int, most: int) -> None:
    hard = resource.getrlimit(what)[1]
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(what, (most, most))


def _find(program: str) -> str:
    """Its path by PATH; the name itself where it has a slash or is not there."""
    if os.sep in program:
        return program
    paths = (os.path.join(folder, program) for folder in os.get_exec_path())
    return next((path for path in paths if os.access(path, os.X_OK)), program)


def main() -> None:
    """Set the limits, then become the program."""
    words, argv = sys.argv[1 : LIMITS + 1], sys.argv[LIMITS + 1 :]
    # Found before rights are given up: from then on Python cannot count on reaching even its own library.
    program = _find(argv[0])
    try:
        confine(*limits_of(words))
        os.execve(program, argv, os.environ)  # noqa: S606
    except OSError as failure:
        print(f"cannot start {argv[0]}: {failure.strerror}", file=sys.stderr)
        os._exit(127)


if __name__ == "__main__":
    main()
