"""What a jailed child of ours keeps of root's rights, when it has to touch files of other owners.

Used around `agent.jail.enter`, which makes root nobody: `lock_into` before it, `keep` after it. For a process without
root's rights neither does anything. From `lock_into` or `keep_to` on nothing can be imported.
"""

from __future__ import annotations

import ctypes
import os

from agent import landlock
from agent.confining import CAPABILITIES_VERSION, permitted_rights

CHOWN, DAC_OVERRIDE, FOWNER, FSETID = (1 << number for number in (0, 1, 3, 4))
"""Give files away; read and write whatever the mode; change others' modes and times; keep a directory's setgid."""
_SYS_CHROOT = 1 << 18
_PR_SET_KEEPCAPS = 8


def lock_into(directory: int) -> bool:
    """Make a directory all there is to see, and let rights outlive the change of user; False if we may not."""
    _libc().prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    if not permitted_rights() & _SYS_CHROOT:
        return False
    os.fchdir(directory)
    os.chroot(".")
    return True


def keep_to(directory: int, path: str) -> str:
    """Work from now on with nothing but what is below a directory, and stay the user that we are; after `enter`.

    A kernel that offers neither way to somebody without root's rights (see `agent.landlock`) leaves it at that.

    Args:
        directory: its descriptor.
        path: its path.
    Returns:
        The path that it has from now on.
    """
    is_root_of_all = lock_into(directory)
    if not is_root_of_all:
        landlock.keep_to(directory)
    keep(CHOWN | DAC_OVERRIDE | FOWNER)
    return "/" if is_root_of_all else path


def keep(rights: int) -> None:
    """Give up all rights but these; they have to have been there."""
    kept = permitted_rights() & rights
    header = (ctypes.c_uint32 * 2)(CAPABILITIES_VERSION, 0)
    data = (ctypes.c_uint32 * 6)(kept, kept, 0, 0, 0, 0)
    if _libc().capset(ctypes.byref(header), ctypes.byref(data)):
        raise OSError(ctypes.get_errno(), "capset")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
