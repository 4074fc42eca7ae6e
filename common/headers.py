"""What an archive is and, at its end, what was in it: the values behind the wire's ArchiveHeader and End."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, TypeVar

import msgspec

from common.errors import ArchiveIncompatibleError, ArchiveWrongKindError
from common.fingerprints import Fingerprint

if TYPE_CHECKING:
    # What a jailed child reads is JSON, and a third of its start would go into this.
    from mathison.data.v1 import transfer_pb2 as wire

FORMAT_VERSION = 1
"""`ArchiveHeader.format_version` of the archives that this program writes."""
MOST_ENTRIES = 64
MOST_NAME_CHARACTERS = 256
MOST_VALUE_CHARACTERS = 1024
"""Of a header's counts and details, and of each of its texts; ours are smaller, but anybody may have written one."""

MOST_COUNTED = 2**63 - 1
"""The wire carries twice as much, which msgspec cannot check."""

Count = Annotated[int, msgspec.Meta(ge=0, le=MOST_COUNTED)]
FormatVersion = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
T = TypeVar("T")


class ArchiveHeader(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of an archive before its first byte; every field may be unknown (empty, zero, None).

    The meaning of each field is in protos/mathison/data/v1/transfer.proto. As JSON this is also what stands in an
    archive's own header (an SQL comment, a tar's first member).
    """

    recipe: str = ""
    format: str = ""
    format_version: FormatVersion = 0
    engine: str = ""
    engine_version: str = ""
    made_by: str = ""
    created_at: dt.datetime | None = None
    app_id: str = ""
    counts: Mapping[str, Count] = {}
    details: Mapping[str, str] = {}
    media_type: str = ""
    file_name: str = ""
    size_bytes: Count = 0

    def __post_init__(self) -> None:
        if self.created_at is not None:
            try:
                self.created_at.astimezone(dt.UTC)
            except OverflowError as failure:
                raise ValueError("created_at is no moment between the years 1 and 9999") from failure

    def to_json(self) -> bytes:
        """One line of JSON without what is unknown."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, text: bytes) -> ArchiveHeader:
        """The reverse of to_json.

        Raises:
            ValueError: it is anything else (msgspec.ValidationError), or holds a number or moment that no wire carries.
        """
        return msgspec.json.decode(text, type=cls)

    def require_known_version(self) -> None:
        """ArchiveIncompatibleError for an archive of a later version than this program's."""
        if self.format_version > FORMAT_VERSION:
            raise ArchiveIncompatibleError(
                f"The file is of format version {self.format_version}; this program reads up to {FORMAT_VERSION}.",
                next_step="Use the version of this program that made it, or a later one.",
            )

    def require_importable(self, recipe: str) -> None:
        """See that an app of a recipe may take what says this of itself; an archive that names no recipe may be taken.

        Raises:
            ArchiveIncompatibleError: as `require_known_version`.
            ArchiveWrongKindError: another recipe exported it.
        """
        self.require_known_version()
        if self.recipe not in ("", recipe):
            raise ArchiveWrongKindError(
                f"The file is an export of recipe {self.recipe!r}; this app takes those of {recipe!r}.",
                next_step="Import it into an app of that recipe.",
            )

    def abridged(self) -> ArchiveHeader:
        """What is kept of the header of somebody's file: what is longer than ours ever are is cut."""
        texts = {name: getattr(self, name)[:MOST_VALUE_CHARACTERS] for name in _TEXTS}
        details = {name: value[:MOST_VALUE_CHARACTERS] for name, value in self.details.items()}
        return msgspec.structs.replace(self, counts=_few(self.counts), details=_few(details), **texts)

    def to_proto(self) -> wire.ArchiveHeader:
        from mathison.data.v1 import transfer_pb2 as wire

        message = wire.ArchiveHeader(
            recipe=self.recipe,
            format=self.format,
            format_version=self.format_version,
            engine=self.engine,
            engine_version=self.engine_version,
            made_by=self.made_by,
            app_id=self.app_id,
            counts=self.counts,
            details=self.details,
            media_type=self.media_type,
            file_name=self.file_name,
            size_bytes=self.size_bytes,
        )
        if self.created_at is not None:
            message.created_at.FromDatetime(self.created_at)
        return message

    @classmethod
    def from_proto(cls, message: wire.ArchiveHeader) -> ArchiveHeader:
        created_at = message.created_at.ToDatetime(dt.UTC) if message.HasField("created_at") else None
        return cls(
            recipe=message.recipe,
            format=message.format,
            format_version=message.format_version,
            engine=message.engine,
            engine_version=message.engine_version,
            made_by=message.made_by,
            created_at=created_at,
            app_id=message.app_id,
            counts=dict(message.counts),
            details=dict(message.details),
            media_type=message.media_type,
            file_name=message.file_name,
            size_bytes=message.size_bytes,
        )


_TEXTS = [field.name for field in msgspec.structs.fields(ArchiveHeader) if field.type is str]


def _few(entries: Mapping[str, T]) -> dict[str, T]:
    return {name[:MOST_NAME_CHARACTERS]: value for name, value in list(entries.items())[:MOST_ENTRIES]}


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What the end frame says: payload size in bytes, its SHA-256 in lower-case hex, and what was in it."""

    size_bytes: int
    sha256: str
    counts: Mapping[str, int] = {}
    warnings: tuple[str, ...] = ()
    fingerprint: Fingerprint | None = None

    def to_proto(self) -> wire.End:
        from mathison.data.v1 import transfer_pb2 as wire

        return wire.End(
            size_bytes=self.size_bytes,
            sha256=self.sha256,
            counts=self.counts,
            warnings=self.warnings,
            fingerprint=self.fingerprint.to_proto() if self.fingerprint else None,
        )

    @classmethod
    def from_proto(cls, message: wire.End) -> Receipt:
        return cls(
            size_bytes=message.size_bytes,
            sha256=message.sha256,
            counts=dict(message.counts),
            warnings=tuple(message.warnings),
            fingerprint=Fingerprint.from_proto(message.fingerprint) if message.HasField("fingerprint") else None,
        )
