"""A zip's entries as members, for people who pack a directory on a desktop.

A zip is read from its end, so it has to be a file. It knows no owners, and no times finer than seconds.
"""

from __future__ import annotations

import calendar
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

from agent.archives.members import Kind, Member, printable
from agent.archives.tallies import Tally
from common.codecs import PeekedFile, UnpackedFile
from common.errors import (
    ArchiveDamagedError,
    ArchiveError,
    ArchiveRefusedError,
    ArchiveTruncatedError,
    ArchiveWrongKindError,
    LimitExceededError,
)
from common.kinds import HEAD_BYTES, TAR, kind_of
from common.readers import Reader
from common.zip_ends import END_BYTES, END_MAGIC, require_one_end
from common.zip_names import UNIX_SYSTEMS, extra_fields, name_of

PIECE_BYTES = 1 << 20
_TIME_EXTRA = 0x5455
_ENCRYPTED = 1
_RATIO_COUNTS_FROM_BYTES = 1 << 30
_MAX_TARGET_BYTES = 4096


class ZipReader:
    """A zip from an untrusted source; same use as TarReader."""

    def __init__(self, file: BinaryIO, *, size: int, expansion_ratio: int) -> None:
        """
        Args:
            size: of the file.
            expansion_ratio: most bytes of content for each of the file, once they are more than a gibibyte.
        Raises:
            ArchiveTruncatedError: it has no directory at its end.
            ArchiveDamagedError: it has one that does not hold.
            ArchiveRefusedError: it has two.
        """
        self._size = size
        self._expansion_ratio = expansion_ratio
        self._content_bytes = 0
        require_one_end(file)
        try:
            self._zip = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, EOFError) as failure:
            raise ArchiveTruncatedError(
                "The zip is cut off or damaged: the list of its files, which is its end, is missing.",
                next_step="Send the whole file.",
            ) from failure
        except (ValueError, OSError, OverflowError, NotImplementedError) as failure:
            raise ArchiveDamagedError("The zip is damaged: the list of its files cannot be read.") from failure
        # zipfile finds the end before other bytes, too.
        file.seek(max(size - END_BYTES - len(self._zip.comment), 0))
        if not file.read(END_BYTES).startswith(END_MAGIC):
            raise ArchiveDamagedError("The zip is damaged: there are bytes behind its end.")
        self._present: zipfile.ZipInfo | None = None
        self._guessed = Tally()
        self._lone_tar = ""

    def lone_tar(self) -> Reader | None:
        """The tar that is the zip's only file, without the compression around it; None for every other zip."""
        entries = [entry for entry in self._zip.infolist() if not name_of(entry).text.endswith("/")]
        if len(entries) != 1:
            return None
        [entry] = entries
        member = self._member(entry)
        if member.kind is not Kind.FILE:
            return None
        try:
            unpacked = UnpackedFile(_Entry(self._data(entry)), unpack_zip=False)
            content = PeekedFile(unpacked, head_bytes=HEAD_BYTES)
        except ArchiveError:
            return None
        if kind_of(content.head) != TAR:
            return None
        self._lone_tar = member.name
        return _Counted(content, self._count) if unpacked.layers else content

    def warnings(self) -> list[str]:
        """What a person should know of it; complete once `members` has ended."""
        if self._lone_tar:
            return [f"The zip holds one file, the tar {printable(self._lone_tar)}: what is in that was taken."]
        return self._guessed.sentence(
            "{} name in the zip is in an encoding that it does not tell, and was taken for one of DOS (cp437)",
            "{} names in the zip are in an encoding that it does not tell, and were taken for those of DOS (cp437)",
        )

    def members(self) -> Iterator[Member]:
        """Its entries.

        Raises:
            ArchiveWrongKindError: encrypted, or compressed by another method than deflate.
            ArchiveRefusedError: an entry that is neither file, directory nor symbolic link.
        """
        for entry in self._zip.infolist():
            self._present = entry
            if (name := name_of(entry)).is_guess:
                self._guessed.add(name.text)
            yield self._member(entry)

    def pieces(self, member: Member) -> Iterator[tuple[int, bytes]]:
        """The data of the member that `members` gave last, its CRC checked at the end."""
        offset = 0
        if self._present is None or member.kind is not Kind.FILE:
            return
        for piece in self._data(self._present):
            yield offset, piece
            offset += len(piece)
        if offset != member.size:
            raise ArchiveDamagedError(
                f"The zip is damaged: {printable(member.name)} has not the size it is said to have."
            )

    def _member(self, entry: zipfile.ZipInfo) -> Member:
        name = name_of(entry).text
        if entry.flag_bits & _ENCRYPTED:
            raise ArchiveWrongKindError(
                f"The zip is encrypted: {printable(name)}.", next_step="Pack the files without a password."
            )
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ArchiveWrongKindError(
                f"{printable(name)} is compressed in the zip by another method than deflate.",
                next_step="Pack the files again with an ordinary zip program, or as tar.",
            )
        attributes = entry.external_attr >> 16 if entry.create_system in UNIX_SYSTEMS else 0
        kind = Kind.DIRECTORY if name.endswith("/") else Kind.FILE
        if stat.S_ISLNK(attributes):
            kind = Kind.SYMLINK
        elif stat.S_IFMT(attributes) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ArchiveRefusedError(f"The zip holds a device or fifo, which is not imported: {printable(name)}.")
        mode = stat.S_IMODE(attributes) or (0o755 if kind is Kind.DIRECTORY else 0o644)
        member = Member(name, kind, size=entry.file_size, mode=mode, mtime_ns=_seconds(entry) * 1_000_000_000)
        if kind is Kind.SYMLINK:
            if entry.file_size > _MAX_TARGET_BYTES:
                raise ArchiveRefusedError(f"The symbolic link {printable(name)} has no usable target.")
            member.link_target = b"".join(self._data(entry)).decode(errors="surrogateescape")
        return member

    def _data(self, entry: zipfile.ZipInfo) -> Iterator[bytes]:
        try:
            with self._zip.open(entry) as data:
                while piece := data.read(PIECE_BYTES):
                    self._count(len(piece))
                    yield piece
        except EOFError as failure:
            raise ArchiveTruncatedError("The zip is cut off within a file.", next_step="Send it again.") from failure
        except (zipfile.BadZipFile, zlib.error, ValueError, RuntimeError, NotImplementedError) as failure:
            raise ArchiveDamagedError(
                f"The zip is damaged: {printable(name_of(entry).text)} does not check out."
            ) from failure

    def _count(self, size: int) -> None:
        self._content_bytes += size
        most = self._size * self._expansion_ratio
        if self._content_bytes > _RATIO_COUNTS_FROM_BYTES and self._content_bytes > most:
            raise LimitExceededError(
                f"The zip expands to more than {self._expansion_ratio} times its size; that is a decompression bomb or "
                "needs a higher limit."
            )


class _Entry:
    """An entry's data as a file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._held = memoryview(b"")

    def read(self, size: int, /) -> bytes:
        self._held = self._held or memoryview(next(self._pieces, b""))
        given, self._held = self._held[:size], self._held[size:]
        return bytes(given)


class _Counted:
    """A file, what is read of it told."""

    def __init__(self, source: Reader, count: Callable[[int], None]) -> None:
        self._source = source
        self._count = count

    def read(self, size: int, /) -> bytes:
        piece = self._source.read(size)
        self._count(len(piece))
        return piece


def _seconds(entry: zipfile.ZipInfo) -> int:
    """Time of change: UTC where Info-ZIP's extra field says it, otherwise the clock's time as if that were UTC."""
    for kind, content in extra_fields(entry.extra):
        if kind == _TIME_EXTRA and len(content) >= 5 and content[0] & 1:
            return int.from_bytes(content[1:5], "little", signed=True)
    try:
        return calendar.timegm((*entry.date_time, 0, 0, 0))
    except ValueError:
        return 0
