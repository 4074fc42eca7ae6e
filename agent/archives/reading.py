"""A tar stream taken apart, one member at a time, with nothing taken on trust.

The one fact to know: `tarfile` takes a tar that was cut between two members, one without its end and one with garbage
behind it for whole (CPython 3.11). Here an archive ends with two empty blocks and nothing but zeros after them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from agent.archives import tarblocks as tar
from agent.archives.members import Kind, Member, printable
from agent.archives.sparse import read_map, read_old_map, segments_of_text
from common.errors import (
    ArchiveDamagedError,
    ArchiveRefusedError,
    ArchiveTruncatedError,
    ArchiveWrongKindError,
    LimitExceededError,
)
from common.kinds import TAR, ZIP, kind_of
from common.readers import Reader

PIECE_BYTES = 1 << 20
_MAX_META_BYTES = 2 << 20
"""Of a pax header or a long name: 64 KiB of names, and extended attributes, of which Linux allows 64 KiB each."""
_MOST = (1 << 63) - 1
"""Bytes of a file, and seconds before and after 1970: what Linux has numbers for."""
_NO_OWNER = (1 << 32) - 1
"""What chown takes for "leave it as it is"."""
_KINDS = {
    tar.REGULAR: Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,
    tar.GNU_SPARSE: Kind.FILE,
    tar.LINK: Kind.HARD_LINK,
    tar.SYMLINK: Kind.SYMLINK,
    tar.DIRECTORY: Kind.DIRECTORY,
    tar.GNU_DIRECTORY: Kind.DIRECTORY,
}
_REFUSED = {
    tar.CHARACTER: "a device",
    tar.DEVICE: "a device",
    tar.FIFO: "a fifo",
    b"M": "a part of a file of a tar in several volumes",
}


class TarReader:
    """A tar from an untrusted source.

    Attributes:
        acls_skipped: members with access lists in a form that is not restored (GNU tar's and star's text).
    """

    def __init__(self, source: Reader) -> None:
        self._input = _Input(source)
        self._globals: dict[str, bytes] = {}
        self._left = _Left()
        self.acls_skipped = 0

    def members(self) -> Iterator[Member]:
        """The archive's entries; ends normally only at a proper end. Data that nobody read is skipped.

        Raises:
            ArchiveWrongKindError: not a tar at all.
            ArchiveTruncatedError: it stops before its end.
            ArchiveDamagedError: a header that does not hold, or something behind the end.
            ArchiveRefusedError: an entry of a kind that is not imported.
        """
        is_first = True
        while (block := self._header(is_first=is_first)) != tar.EMPTY:
            is_first = False
            if (member := self._member(block)) is not None:
                yield member
            self._skip()
        self._check_end()

    def pieces(self, member: Member) -> Iterator[tuple[int, bytes]]:
        """The data of the member that `members` gave last: (offset in the file, bytes), in rising order."""
        for offset, length in member.segments if member.segments is not None else [(0, member.size)]:
            while length:
                piece = self._take(min(length, PIECE_BYTES))
                yield offset, piece
                offset += len(piece)
                length -= len(piece)

    def _header(self, *, is_first: bool) -> bytes:
        block = self._input.some(tar.BLOCK) if is_first else self._input.exactly(tar.BLOCK)
        if len(block) == tar.BLOCK and (block == tar.EMPTY or tar.is_header(block)):
            return block
        if is_first and (kind := kind_of(block)) != TAR:
            # Who takes zips does not read them here.
            raise ArchiveWrongKindError(f"The file is {kind}, not a tar{'' if kind == ZIP else ' or zip'} archive.")
        if len(block) < tar.BLOCK:
            raise _truncated(self._input.position)
        raise ArchiveDamagedError(
            f"The archive is damaged: what stands at byte {self._input.position - tar.BLOCK} is no header."
        )

    def _member(self, block: bytes) -> Member | None:
        """What a header announces, with all headers that stand before it for its sake; None for a label."""
        records = dict(self._globals)
        name = link = None
        while (flag := block[tar.FLAG]) in (tar.PAX, tar.PAX_SOLARIS, tar.PAX_GLOBAL, tar.GNU_NAME, tar.GNU_LINK):
            content = self._meta(tar.number_of(block[tar.SIZE]))
            if flag == tar.PAX_GLOBAL:
                self._globals.update(tar.parse_pax(content))
                if sum(map(len, self._globals.values())) > _MAX_META_BYTES:
                    raise LimitExceededError("The archive's global headers are too large.")
                records = {**self._globals, **records}
            elif flag == tar.GNU_NAME:
                name = tar.text_of(content)
            elif flag == tar.GNU_LINK:
                link = tar.text_of(content)
            else:
                records.update(tar.parse_pax(content))
            block = self._input.exactly(tar.BLOCK)
            if not tar.is_header(block):
                raise ArchiveDamagedError("The archive is damaged: a header is missing behind its extension.")
        return self._described(block, flag, records, name=name, link=link)

    def _described(
        self, block: bytes, flag: bytes, records: dict[str, bytes], *, name: str | None, link: str | None
    ) -> Member | None:
        stored = _number(records, "size", block[tar.SIZE])
        if stored < 0:
            raise ArchiveDamagedError("The archive is damaged: an entry has a negative size.")
        name = _text(records, "GNU.sparse.name") or _text(records, "path") or name or tar.name_of(block)
        kind = _KINDS.get(flag)
        if kind is Kind.FILE and flag != tar.GNU_SPARSE and name.endswith("/"):
            # The format of 1979 has no other way to say directory.
            kind = Kind.DIRECTORY
        if flag == tar.GNU_LABEL:
            return None
        if kind is None:
            what = _REFUSED.get(flag, f"an entry of the unknown type {flag!r}")
            raise ArchiveRefusedError(f"The archive holds {what}, which is not imported: {printable(name)}.")
        member = Member(
            name=name,
            kind=kind,
            mode=max(tar.number_of(block[tar.MODE]), 0) & 0o7777,
            uid=_owner(records, "uid", block[tar.UID]),
            gid=_owner(records, "gid", block[tar.GID]),
            mtime_ns=_time(records, block[tar.MTIME]),
            user=_text(records, "uname") or tar.text_of(block[tar.USER]),
            group=_text(records, "gname") or tar.text_of(block[tar.GROUP]),
        )
        self.acls_skipped += any(key.startswith("SCHILY.acl.") for key in records)
        member.attributes = tar.attributes_of(records)
        if kind in (Kind.SYMLINK, Kind.HARD_LINK):
            member.link_target = _text(records, "linkpath") or link or tar.text_of(block[tar.LINK_TARGET])
        if kind is not Kind.FILE and flag != tar.GNU_DIRECTORY:
            # Some programs state a size here; no data follows it.
            stored = 0
        # Only now: a sparse file's map is the beginning of its data.
        self._left = _Left(data=stored, padding=-stored % tar.BLOCK)
        if kind is Kind.FILE:
            member.size = stored
            self._make_sparse(member, block, flag, records)
        if member.size > _MOST or abs(member.mtime_ns) // 1_000_000_000 > _MOST:
            raise ArchiveDamagedError(
                f"The archive is damaged: {printable(name)} has a size or a time that no file can have."
            )
        return member

    def _make_sparse(self, member: Member, block: bytes, flag: bytes, records: dict[str, bytes]) -> None:
        stored = member.size
        if flag == tar.GNU_SPARSE:
            member.size, member.segments = read_old_map(block, lambda: self._input.exactly(tar.BLOCK))
        elif records.get("GNU.sparse.major") == b"1":
            member.size = _number(records, "GNU.sparse.realsize")
            member.segments = read_map(lambda: self._exactly_data(tar.BLOCK), real_size=member.size)
            stored = self._left.data
        elif "GNU.sparse.map" in records:
            member.size = _number(records, "GNU.sparse.size")
            member.segments = segments_of_text(records["GNU.sparse.map"], real_size=member.size)
        if member.segments is not None and sum(length for _, length in member.segments) != stored:
            raise ArchiveDamagedError(
                f"The archive is damaged: the map of the sparse file {printable(member.name)} does not fit its data."
            )

    def _meta(self, size: int) -> bytes:
        if not 0 <= size <= _MAX_META_BYTES:
            raise LimitExceededError(f"The archive has a header of {size} bytes; {_MAX_META_BYTES} are the most.")
        content = self._input.exactly(size)
        self._input.exactly(-size % tar.BLOCK)
        return content

    def _take(self, most: int) -> bytes:
        piece = self._input.some(min(most, self._left.data))
        if not piece:
            raise _truncated(self._input.position)
        self._left.data -= len(piece)
        return piece

    def _exactly_data(self, size: int) -> bytes:
        if size > self._left.data:
            raise ArchiveDamagedError("The archive is damaged: a sparse file's map is longer than its data.")
        self._left.data -= size
        return self._input.exactly(size)

    def _skip(self) -> None:
        while self._left.data:
            self._take(PIECE_BYTES)
        self._input.exactly(self._left.padding)
        self._left = _Left()

    def _check_end(self) -> None:
        if self._input.exactly(tar.BLOCK) != tar.EMPTY:
            raise ArchiveDamagedError("The archive is damaged: it has one empty block where its end has two.")
        while piece := self._input.some(PIECE_BYTES):
            if piece.count(0) != len(piece):
                raise ArchiveDamagedError("The archive is damaged or was added to: something stands behind its end.")


@dataclass(slots=True)
class _Left:
    """What of a member's data was not read yet."""

    data: int = 0
    padding: int = 0


class _Input:
    """Reads of exact lengths from a source that gives what it has.

    Filled with whole pieces, so that every block lies in one of them.
    """

    def __init__(self, source: Reader) -> None:
        self._source = source
        self._held = b""
        self._start = 0
        self.position = 0

    def some(self, most: int) -> bytes:
        """1 to `most` bytes, none at the end; a whole block where one was asked for, unless the source ends."""
        if self._start == len(self._held):
            self._fill()
        found = self._held[self._start : self._start + most]
        self._start += len(found)
        self.position += len(found)
        return found

    def exactly(self, size: int) -> bytes:
        """`size` bytes; ArchiveTruncatedError when there are fewer."""
        found = self.some(size) if size else b""
        while len(found) < size:
            more = self.some(size - len(found))
            if not more:
                raise _truncated(self.position)
            found += more
        return found

    def _fill(self) -> None:
        parts: list[bytes] = []
        missing = PIECE_BYTES
        while missing and (part := self._source.read(missing)):
            parts.append(part)
            missing -= len(part)
        self._held, self._start = b"".join(parts), 0


def _truncated(position: int) -> ArchiveTruncatedError:
    return ArchiveTruncatedError(
        f"The archive is cut off: it stops after {position} bytes of content, before its end.",
        next_step="Send the whole file.",
    )


def _text(records: dict[str, bytes], key: str) -> str:
    return records.get(key, b"").decode(errors="surrogateescape")


def _number(records: dict[str, bytes], key: str, field: bytes = b"") -> int:
    return tar.decimal_of(records[key]) if key in records else tar.number_of(field)


def _owner(records: dict[str, bytes], key: str, field: bytes) -> int:
    number = _number(records, key, field)
    if not 0 <= number < _NO_OWNER:
        raise ArchiveDamagedError(f"The archive is damaged: it has a file with the {key} {number}.")
    return number


def _time(records: dict[str, bytes], field: bytes) -> int:
    if "mtime" in records:
        return tar.nanoseconds_of(records["mtime"])
    return tar.number_of(field) * 1_000_000_000
