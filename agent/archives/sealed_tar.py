"""A tar of an app's directory as it was sent: what is ours in it is judged and checked, the rest are its members.

Imports and `mathison verify` read archives through this, so that neither takes what the other refuses.
"""

from __future__ import annotations

from collections.abc import Iterator

from agent.archives.members import Member
from agent.archives.reading import TarReader
from common.errors import ArchiveWrongKindError
from common.fingerprints import Fingerprint
from common.headers import ArchiveHeader
from common.readers import Reader
from common.seals import TAR_CLOSING, TAR_FINGERPRINT, TAR_OPENING, SealReader, read_fingerprint

_OURS = (TAR_OPENING, TAR_FINGERPRINT, TAR_CLOSING)
_POSTGRESQL_TOC = "toc.dat"


class SealedTar:
    """A tar from an untrusted source, with a seal or without; same use as TarReader.

    Attributes:
        fingerprint: that it carries, known at its end; nothing was compared with it.
    """

    def __init__(self, source: Reader, *, recipe: str) -> None:
        """
        Args:
            recipe: whose exports are taken; archives that name none are taken as well.
        """
        self.fingerprint: Fingerprint | None = None
        self._recipe = recipe
        self._source = _SealedInput(source)
        self._tar = TarReader(self._source)

    @property
    def header(self) -> ArchiveHeader | None:
        """What it says of itself; known with the first member, None for archives of others."""
        return self._source.seal.header

    @property
    def acls_skipped(self) -> int:
        """As TarReader's."""
        return self._tar.acls_skipped

    def members(self) -> Iterator[Member]:
        """Its members but for ours; ends normally only at a proper end whose seal holds.

        Raises:
            ArchiveWrongKindError: of another recipe, or none of a directory.
            ArchiveIncompatibleError: of a newer format.
            ArchiveDamagedError: its fingerprint cannot be read.
            Whatever `TarReader.members` and `SealReader.finish` raise.
        """
        seal = self._source.seal
        is_judged, is_first = False, True
        for member in self._tar.members():
            if seal.header is not None and not is_judged:
                seal.header.require_importable(self._recipe)
                is_judged = True
            if seal.is_sealed and member.name in _OURS:
                if member.name == TAR_FINGERPRINT:
                    self.fingerprint = read_fingerprint(b"".join(piece for _, piece in self.pieces(member)))
                continue
            if is_first and member.name == _POSTGRESQL_TOC:
                raise ArchiveWrongKindError(
                    "The file is a PostgreSQL dump in tar format, not an archive of a directory."
                )
            is_first = False
            yield member
        seal.finish()

    def pieces(self, member: Member) -> Iterator[tuple[int, bytes]]:
        """As TarReader's."""
        return self._tar.pieces(member)


class _SealedInput:
    """A source whose seal is checked while it passes by."""

    def __init__(self, source: Reader) -> None:
        self.seal = SealReader()
        self._source = source

    def read(self, size: int, /) -> bytes:
        piece = self._source.read(size)
        self.seal.add(piece)
        return piece
