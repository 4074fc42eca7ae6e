"""What lies beside a database and would have SQLite do something else than read it.

A rollback journal may name another file: SQLite deletes the one that is named at its end. So it does with the
"super-journal" of a transaction across several databases when it takes such a transaction back, wherever that file is
(sqlite.org/atomiccommit.html, 5.4 and 5.5). A journal comes with an upload, or from an app that somebody has taken
over, and whoever opens the database next deletes with his own rights. And a fifo in the place of such a file is opened
as one: SQLite waits for who writes into it.
"""

from __future__ import annotations

import errno
import os
import stat

from agent.archives.members import SQLITE_SIDECARS

_MAGIC = bytes.fromhex("d9d505f920a163d7")
_END_BYTES = 16
"""The length of the name, a sum of it, and the magic."""
WORDS = "its journal names another file, which SQLite would delete"


def names_another_file(database: str) -> bool:
    """Whether opening a database would have SQLite look for a file that its journal names, and delete it.

    Raises:
        OSError: the journal cannot be read.
    """
    try:
        # SQLite follows links to a database, but none to a journal.
        descriptor = os.open(f"{os.path.realpath(database)}-journal", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    except OSError as failure:
        if failure.errno == errno.ELOOP:
            return False
        raise
    try:
        size = os.fstat(descriptor).st_size
        end = os.pread(descriptor, _END_BYTES, max(size - _END_BYTES, 0))
        # A journal that begins with zeros is of a transaction that is done.
        is_hot = os.pread(descriptor, 1, 0) not in (b"", b"\0")
        return is_hot and end.endswith(_MAGIC) and any(end[:4])
    finally:
        os.close(descriptor)


def no_file_beside(database: str) -> str:
    """The name of what SQLite would open beside a database and is no file; empty: nothing is so."""
    path = os.path.realpath(database)
    for ending in SQLITE_SIDECARS:
        try:
            mode = os.lstat(f"{path}{ending}").st_mode
        except OSError:
            continue
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
            return f"{os.path.basename(path)}{ending}"
    return ""
