"""A found file as a member of an archive, under the names that this machine has for its owners."""

from __future__ import annotations

import functools
import grp
import pwd
import stat

from agent.archives.members import Kind, Member
from agent.archives.walking import Found


def member_of(found: Found, kind: Kind) -> Member:
    """With path, mode, owners and time; where links point and what the content is, is for the caller to add."""
    status = found.status
    return Member(
        name=found.path,
        kind=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime_ns=status.st_mtime_ns,
        user=_user(status.st_uid),
        group=_group(status.st_gid),
    )


@functools.lru_cache(maxsize=256)
def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


@functools.lru_cache(maxsize=256)
def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return ""
