"""Landlock: a process without root's rights that may work with the files below one directory, and with no others.

Of the kernel since 5.13, where it is switched on; numbers and meanings are those of its landlock(7). Files that were
opened before stay open.
"""

from __future__ import annotations

import ctypes
import os

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION = 1
_PATH_BENEATH = 1
_WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_FILE, _MAKE_REG, _TRUNCATE = (1 << number for number in (1, 2, 3, 5, 8, 14))
_KNOWN_BITS = {1: 13, 2: 14}
"""Rights of the first versions; all of files and directories are 15 from the third on."""


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def keep_to(directory: int) -> bool:
    """Work with files below a directory only, for ever: read, write, make and remove them, nothing else.

    Needs no_new_privs. False: this kernel cannot do that.

    Args:
        directory: its descriptor.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE_RULESET, None, 0, _ASK_VERSION)
    if version < 1:
        return False
    handled = (1 << _KNOWN_BITS.get(version, 15)) - 1
    ruleset = libc.syscall(_CREATE_RULESET, ctypes.byref(ctypes.c_uint64(handled)), 8, 0)
    if ruleset < 0:
        raise OSError(ctypes.get_errno(), "landlock_create_ruleset")
    try:
        allowed = handled & (_WRITE_FILE | _READ_FILE | _READ_DIR | _REMOVE_FILE | _MAKE_REG | _TRUNCATE)
        rule = _PathBeneath(allowed, directory)
        if libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0):
            raise OSError(ctypes.get_errno(), "landlock_add_rule")
        if libc.syscall(_RESTRICT_SELF, ruleset, 0):
            raise OSError(ctypes.get_errno(), "landlock_restrict_self")
    finally:
        os.close(ruleset)
    return True
