"""Content that lifecycle rules have moved to a remote tier: a drive, and so an archive of it, holds its name
there alone.

Whose `xl.meta` names it may delete it there, so a server that has got another's shares it.
"""

from __future__ import annotations

import msgspec

from agent.archives.members import printable
from agent.engines.minio.drive.xlmeta import Version
from common.errors import ArchiveIncompatibleError
from common.wording import counted

_NAMED = 5
_PLACES = 1000


class Place(msgspec.Struct):
    """A version whose content is in a tier, as a client asks for it.

    Attributes:
        size: of the content.
    """

    bucket: str
    key: str
    version: str
    size: int


class Tiered(msgspec.Struct):
    """Versions whose content is in a tier.

    Attributes:
        bytes: of their content.
        names: of a few of them, with their buckets.
        tiers: a few.
        places: of a thousand of them at most, without those that need a caller's key.
        freed: versions that were deleted, whose content a server that has their names deletes in its tier.
        freed_names, freed_tiers: a few of each.
    """

    versions: int = 0
    bytes: int = 0
    names: list[str] = []
    tiers: list[str] = []
    places: list[Place] = []
    freed: int = 0
    freed_names: list[str] = []
    freed_tiers: list[str] = []

    def add(self, bucket: str, key: str, version: Version) -> None:
        """One version; nothing of one whose content is on the drive."""
        if not version.tier:
            return
        self.versions += 1
        self.bytes += version.size
        _note(self.names, f"{bucket}/{key}")
        _note(self.tiers, version.tier)
        if len(self.places) < _PLACES and version.encryption != "customer":
            self.places.append(Place(bucket, key, version.id, version.size))

    def add_freed(self, bucket: str, key: str, tier: str) -> None:
        """One that was deleted, and whose content is in a tier."""
        self.freed += 1
        _note(self.freed_names, f"{bucket}/{key}")
        _note(self.freed_tiers, tier)

    def parts(self) -> dict[str, str]:
        """Of a fingerprint, beside its buckets."""
        return {"content in a tier, not here": f"{self.versions} versions, {self.bytes} bytes"} if self.versions else {}

    def text(self, where: str) -> str:
        """Without a full stop; empty where there are none.

        Args:
            where: what they are not in.
        """
        if not self.versions:
            return ""
        return (
            f"The content of {counted(self.versions, 'versions')} ({counted(self.bytes, 'bytes')}) is not in {where}: "
            f"lifecycle rules have moved it to the tier {', '.join(self.tiers)} ({', '.join(self.names)})"
        )

    def freed_text(self) -> str:
        """As `text`, of what was deleted."""
        if not self.freed:
            return ""
        return (
            f"The archive has a server that gets it delete {counted(self.freed, 'objects')} in the tier "
            f"{', '.join(self.freed_tiers)}: the content of versions that were deleted ({', '.join(self.freed_names)})"
        )


def about(tiered: Tiered) -> list[str]:
    """What a person should know of an archive that was exported."""
    return _told(tiered, "Imports refuse such an archive; one in `?format=s3` holds all content, and deletes none.")


def about_sharing(tiered: Tiered) -> list[str]:
    """What a person should know before an import that shares it."""
    return _told(
        tiered,
        "What is deleted of it, here or on the server that the archive is of, is gone from the tier for all of them, "
        "and for the previous data of either: no undo brings it back.",
    )


def require_none(tiered: Tiered) -> None:
    """Refuse an archive that does not hold all content, or that deletes some; ArchiveIncompatibleError."""
    for told in _told(
        tiered, "Two servers that share it lose it for each other when they delete. Nothing was changed."
    ):
        raise ArchiveIncompatibleError(
            told,
            next_step="Export in the portable format, `?format=s3`, which holds the content. Where the server that the "
            "archive is of is given up, import with `tiered=share`, and this one goes on with what lies in the tier.",
        )


def _told(tiered: Tiered, consequence: str) -> list[str]:
    told = [text for text in (tiered.text("the archive"), tiered.freed_text()) if text]
    return [". ".join([*told, consequence])] if told else []


def _note(names: list[str], name: str) -> None:
    if len(names) < _NAMED and printable(name) not in names:
        names.append(printable(name))
