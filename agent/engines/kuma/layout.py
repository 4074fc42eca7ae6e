"""Where an unpacked archive of a data directory holds what, and how that is put where the app has it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from agent.archives.links import gives_away
from agent.archives.members import SQLITE_SIDECARS, is_of_macos, printable
from agent.archives.walking import walk
from agent.engines.filesystem import DIRECTORY, rename_without_replacing
from agent.engines.verifying import LINK_WAY_OUT, is_there
from common.errors import ArchiveDamagedError, ArchiveRefusedError, ArchiveWrongKindError

DATABASE = "kuma.db"
DATABASE_FILES = (DATABASE, *(f"{DATABASE}{ending}" for ending in SQLITE_SIDECARS))
DUMP = "kuma.sql"
"""What an export of an app on MariaDB has in the place of the database."""
FOLDERS = ("docker-tls", "screenshots", "upload")
CONFIGURATION = "db-config.json"
SERVER_DATA = "mariadb"
"""The data directory of the MariaDB that the app itself runs."""
SERVER_SOCKET = "run/mariadb.sock"
MOVED = (*DATABASE_FILES, *FOLDERS)
"""What an import exchanges. The rest of the directory stays: `db-config.json` names the app's own database, and older
copies of the database are none of our business."""
_MOST_LEVELS = 4
"""Folders around the data in an archive of others: `app/data/kuma.db`, for example."""


def is_left_out(path: str, name: str) -> bool:
    """Whether an entry is no part of an export; SQLite's own files are in the copy of the database."""
    return path.partition("/")[0] not in (DATABASE, *FOLDERS)


def is_no_folder(path: str, name: str) -> bool:
    """Whether an entry is outside of the app's folders."""
    return path.partition("/")[0] not in FOLDERS


def settle(new: int) -> None:
    """Bring what was unpacked to the top of its directory, if folders are around it.

    Args:
        new: descriptor of the directory.
    Raises:
        ArchiveWrongKindError: the data is not in there.
        ArchiveRefusedError: there is a link in the place of it.
        ArchiveDamagedError: a folder around it may not be entered.
    """
    level = os.dup(new)
    try:
        for _ in range(_MOST_LEVELS):
            names = [name for name in os.listdir(level) if not is_of_macos(name)]
            if DATABASE in names:
                _bring_up(level, new)
                require_plain(new)
                return
            if DUMP in names:
                raise dump_for_sqlite(f"The archive holds {DUMP}, a MariaDB dump")
            if len(names) != 1 or not stat.S_ISDIR(os.stat(names[0], dir_fd=level, follow_symlinks=False).st_mode):
                break
            below = os.open(names[0], DIRECTORY, dir_fd=level)
            os.close(level)
            level = below
    except PermissionError as failure:
        raise ArchiveDamagedError("A folder in the archive is one that its owner may not use.") from failure
    finally:
        os.close(level)
    raise ArchiveWrongKindError(
        f"The archive holds no {DATABASE}, so it is not the data directory of an Uptime Kuma on SQLite.",
        next_step="Archive the app's whole data directory, or send its kuma.db alone.",
    )


def dump_for_sqlite(what: str) -> ArchiveWrongKindError:
    """The error for a dump where the app's configuration names no MariaDB.

    Args:
        what: the upload turned out to be, the beginning of a sentence.
    """
    return ArchiveWrongKindError(
        f"{what}; this Uptime Kuma keeps its data in SQLite, or was not set up yet, and one cannot be made of the "
        "other.",
        next_step="Import it into an Uptime Kuma 2 that was set up with MariaDB: a new one asks for its database on "
        "its first page.",
    )


def leaves_its_folder(path: str, target: str, directory: Path) -> bool:
    """Whether a symbolic link may lead out of the folder that it is in: the app gives out `upload/` to anyone, and its
    database lies beside that.
    """
    return gives_away(path, target, inside=str(directory), depth=1)


def require_inside(new: int, directory: Path) -> None:
    """Judge what is in the folders, once they are where they will be.

    Args:
        new: descriptor of the directory that was unpacked to, settled.
        directory: the app's: a link that is there already, with the same target, is no news.
    Raises:
        ArchiveRefusedError: a link in one of them leads out of it.
        ArchiveDamagedError: a folder may not be entered.
    """
    present = os.listdir(new)
    databases = {_inode(os.stat(name, dir_fd=new)) for name in DATABASE_FILES if name in present}
    for found in walk(new, is_left_out=is_no_folder, on_unreadable=_refuse_unreadable):
        if stat.S_ISLNK(found.status.st_mode):
            target = os.readlink(found.name, dir_fd=found.parent)
            if leaves_its_folder(found.path, target, directory) and not is_there(directory / found.path, target):
                raise ArchiveRefusedError(
                    f"The archive holds a symbolic link that leads out of its folder: {printable(found.path)} -> "
                    f"{printable(target)}. The app may give away what it points to.",
                    next_step=LINK_WAY_OUT,
                )
        elif _inode(found.status) in databases:
            raise ArchiveRefusedError(
                f"The archive has the database a second time as {printable(found.path)}, by a hard link: the app may "
                "give it away there.",
                next_step="Pack the archive without that name.",
            )


def _refuse_unreadable(path: str) -> None:
    raise ArchiveDamagedError(f"{printable(path)} in the archive is a folder that its owner may not use.")


def _inode(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def remove_sidecars(new: Path) -> None:
    """Delete what SQLite keeps beside a database that was completed."""
    for name in DATABASE_FILES[1:]:
        (new / name).unlink(missing_ok=True)


def _bring_up(level: int, new: int) -> None:
    if os.path.samestat(os.fstat(level), os.fstat(new)):
        return
    for name in os.listdir(level):
        if name in MOVED:
            try:
                rename_without_replacing(name, source=level, target=new)
            except FileExistsError as failure:
                raise ArchiveWrongKindError(f"The archive holds {name} twice, in a folder of that name.") from failure


def require_plain(new: int) -> None:
    """ArchiveRefusedError for links in the place of data: the app would follow them anywhere, and so would SQLite."""
    for name in os.listdir(new):
        mode = os.stat(name, dir_fd=new, follow_symlinks=False).st_mode
        is_fine = stat.S_ISREG(mode) if name in DATABASE_FILES else stat.S_ISDIR(mode)
        if name in MOVED and not is_fine:
            raise ArchiveRefusedError(f"{printable(name)} in the archive is not what it is in Uptime Kuma's data.")
