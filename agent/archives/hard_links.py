"""Which files have several names, and which of these is in an archive already."""

from __future__ import annotations

import os
import secrets
import sqlite3
from pathlib import Path

from agent.archives.walking import Found


class HardLinks:
    """The first path of every file with several names, until its last name was met. On disk: there may be millions."""

    def __init__(self, directory: Path, work_directory: Path) -> None:
        self._directory = os.fsencode(directory)
        self._work_directory = work_directory
        self._opened: sqlite3.Connection | None = None

    def first_path(self, found: Found) -> str | None:
        """The name under which the file is in the archive already, or None."""
        key = (_inode(found),)
        row = self._table.execute("SELECT path, names_left, stamp FROM link WHERE inode = ?", key).fetchone()
        if row is None:
            return None
        if row[2] != _stamp(found.status) and not self._leads_to(row[0], found.status):
            # Deleted meanwhile, and its number used again; `remember` takes its place.
            return None
        if row[1] <= 1:
            self._table.execute("DELETE FROM link WHERE inode = ?", key)
        else:
            self._table.execute("UPDATE link SET names_left = names_left - 1 WHERE inode = ?", key)
        return os.fsdecode(row[0])

    def remember(self, found: Found) -> None:
        """Say that the file is in the archive under this name; other names of it may follow."""
        row = (_inode(found), os.fsencode(found.path), found.status.st_nlink - 1, _stamp(found.status))
        self._table.execute("INSERT OR REPLACE INTO link VALUES (?, ?, ?, ?)", row)

    def close(self) -> None:
        """Let go of the table; its file has no name any more."""
        if self._opened is not None:
            self._opened.close()

    def _leads_to(self, path: bytes, status: os.stat_result) -> bool:
        try:
            return os.path.samestat(os.lstat(os.path.join(self._directory, path)), status)
        except OSError:
            return False

    @property
    def _table(self) -> sqlite3.Connection:
        if self._opened is None:
            path = self._work_directory / f"hard-links-{secrets.token_hex(6)}"
            self._opened = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            path.unlink()
            for pragma in ("journal_mode=OFF", "synchronous=OFF", "locking_mode=EXCLUSIVE", "cache_size=-2000"):
                self._opened.execute(f"PRAGMA {pragma}")
            self._opened.execute("CREATE TABLE link (inode PRIMARY KEY, path, names_left, stamp) WITHOUT ROWID")
        return self._opened


def _stamp(status: os.stat_result) -> bytes:
    """The same for all names of a file that nobody writes to; another file's differs, whatever its number."""
    return b"%d:%d" % (status.st_mtime_ns, status.st_size)


def _inode(found: Found) -> bytes:
    # As bytes: inode numbers use all 64 bits on some filesystems, SQLite's integers 63.
    return b"%d:%d" % (found.status.st_dev, found.status.st_ino)
