"""Whether an unpacked tree is fit to take the place of an app's data, and what it would change."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from agent.archives.extracting import Extracted
from agent.archives.links import leads_to_programs
from agent.archives.members import SQLITE_SIDECARS, printable
from agent.archives.surveying import Survey
from agent.engines.sqlite import journals
from agent.engines.sqlite.bounds import size_of
from agent.engines.sqlite.uploads import check_database
from common.errors import ArchiveDamagedError, ArchiveError, ArchiveRefusedError, LimitExceededError, ServiceError
from common.wording import counted, some_of

_MOST_NAMES = 3
_CHECKED_DATABASES = 64
LINK_WAY_OUT = "Pack the archive without the link; or, if it is right for this app, make the same one there first."
"""Where an import has no option for it."""


def check_links(extracted: Extracted, *, present: Path, way_out: str, keep: bool = False) -> list[str]:
    """Judge symbolic links that lead out of the volume; see docs/decisions/0201-symbolic-links.md.

    Args:
        extracted: of an archive whose entries stay where they were unpacked.
        present: the app's data: a link that is there already, with the same target, is no news.
        way_out: what a person can do whose link is refused.
    Returns:
        A warning when such links stay.
    Raises:
        ArchiveRefusedError: there are some that may give away what is not the app's data.
    """
    suspect = [
        (path, target)
        for path, target in extracted.outside_link_paths
        if not leads_to_programs(target) and not is_there(present / path, target)
    ]
    unlisted = extracted.outside_links - len(extracted.outside_link_paths)
    if not suspect and not unlisted:
        return []
    path, target = (suspect or extracted.outside_link_paths or [("", "")])[0]
    count = len(suspect) + unlisted
    many = f"{count} symbolic links that lead" if count > 1 else "a symbolic link that leads"
    text = f"The archive holds {many} out of the volume: {printable(path)} -> {printable(target)}."
    if not keep:
        raise ArchiveRefusedError(
            f"{text} An app that follows it may give away what it points to.",
            next_step=way_out,
        )
    return [text]


async def check_databases(new: Path, extracted: Extracted, *, is_sealed: bool, keep_damaged: bool) -> list[str]:
    """Let SQLite look at the databases of an unpacked tree.

    Args:
        is_sealed: the archive carries a digest of its content, so what is damaged was so when it was exported.
    Returns:
        Warnings about databases that are damaged, or were not looked at.
    Raises:
        ArchiveRefusedError: to open one would delete a file.
        ArchiveDamagedError: a damaged one in an archive without a seal: copied from under a writer, as a rule.
    """
    warnings = []
    unchecked = max(extracted.databases - _CHECKED_DATABASES, 0)
    for path in extracted.database_paths[:_CHECKED_DATABASES]:
        database = new / path
        if journals.names_another_file(str(database)):
            raise ArchiveRefusedError(
                f"The SQLite database {printable(path)} cannot be imported: {journals.WORDS}.",
                next_step="Make the archive with the app stopped or with this program; leave the journal out if nobody "
                "knows where it comes from.",
            )
        if any(size_of(Path(f"{database}{ending}")) for ending in SQLITE_SIDECARS):
            # What is in there is part of it, and taking it in would change what was sent.
            unchecked += 1
            continue
        if problem := await _problem_of(database):
            if not is_sealed and not keep_damaged:
                raise ArchiveDamagedError(
                    f"The SQLite database {printable(path)} in the archive is damaged: {problem} It was probably "
                    "copied while the app wrote to it.",
                    next_step="Make the archive with the app stopped or with this program, or import with the option "
                    "damaged_databases=keep.",
                )
            warnings.append(f"The SQLite database {printable(path)} is damaged: {problem}")
    if unchecked:
        noun = "database was" if unchecked == 1 else "databases were"
        warnings.append(f"{unchecked} SQLite {noun} not checked: too many, or with changes in a file of their own.")
    return warnings


def counts(found: Survey) -> dict[str, int]:
    """What a preview counts of a tree; a file with two names counts twice, as it does for the app."""
    return {"files": found.files, "bytes": found.length_bytes, "databases": found.databases}


def changes(now: Survey, after: Survey) -> tuple[str, ...]:
    """What an import would change, in sentences."""
    more = "" if now.is_complete and after.is_complete else ", as far as they were counted"
    return (
        f"{counted(after.files, 'files')} ({after.length_bytes:,} bytes) instead of {now.files:,} "
        f"({now.length_bytes:,}){more}.",
        _changes_at_the_top(now, after),
    )


def _changes_at_the_top(now: Survey, after: Survey) -> str:
    if not (now.has_all_tops and after.has_all_tops):
        return "At the top of the volume are too many names to compare them one by one."
    added = after.tops.keys() - now.tops.keys()
    removed = now.tops.keys() - after.tops.keys()
    both = after.tops.keys() & now.tops.keys()
    changed = {name for name in both if after.tops[name] != now.tops[name]}
    return (
        f"At the top of the volume: {_named(added, 'new')}, {_named(removed, 'gone')}, {_named(changed, 'changed')}, "
        f"{len(both) - len(changed)} as they are."
    )


def dropped(extracted: Extracted, *, acls_skipped: int) -> list[str]:
    """What of the archive could not be taken over, in sentences."""
    facts = (
        (extracted.owner_differs, "{} entries belong to another user than in the archive: the agent is not root."),
        (extracted.rights_dropped, "{} entries lost their setuid or setgid bit."),
        (extracted.attributes_dropped, "{} extended attributes were not restored."),
        (acls_skipped, "{} access lists in the archive are of a form that is not restored."),
        (extracted.left_out, "{} entries below .mathison-data, lost+found or .snapshot were left out."),
    )
    return [text.format(count) for count, text in facts if count]


def of_macos(extracted: Extracted) -> list[str]:
    """A warning of what macOS has put for itself into an archive that this program did not make."""
    return extracted.of_macos.sentence(
        "{} entry of the archive is macOS's own, not the app's, and comes in with the rest",
        "{} entries of the archive are macOS's own, not the app's, and come in with the rest",
    )


def owners_differ(extracted: Extracted, now: Survey) -> list[str]:
    """A warning when none of the archive's owners has anything among the app's present data."""
    if not extracted.owners or not now.owners or set(extracted.owners) & set(now.owners):
        return []
    return [
        f"The archive's files belong to {', '.join(extracted.owners[:_MOST_NAMES])}, the app's present files to "
        f"{', '.join(now.owners[:_MOST_NAMES])} (uid:gid). If the app cannot read them, import with the option "
        "ownership=app."
    ]


def _named(names: Sequence[str] | set[str], what: str) -> str:
    if not names:
        return f"0 {what}"
    return f"{len(names)} {what} ({some_of([printable(name) for name in sorted(names)], _MOST_NAMES)})"


async def _problem_of(database: Path) -> str:
    """What SQLite has against a database, as a sentence; empty when nothing."""
    try:
        await check_database(database)
    except ArchiveError as error:
        return error.text
    except LimitExceededError:
        return "SQLite does not get through it: it takes longer, or more memory, than an honest one of its size."
    except ServiceError as error:
        return f"it could not be checked: {error.text}"
    return ""


def is_there(path: Path, target: str) -> bool:
    """Whether there is a symbolic link of that target already."""
    try:
        return os.readlink(path) == target
    except OSError:
        return False
