"""The one file in a zip that comes as a stream, read by the headers before its entries: the directory is at the end.

The one fact to know: a zip that was written as a stream says only behind a file's data how long they were and which
checksum they have. Source: APPNOTE.TXT, 4.3.7 to 4.3.16.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from common.errors import ArchiveWrongKindError
from common.readers import PIECE_BYTES, Reader, require_padding
from common.zip_names import extra_fields

ZIP = b"PK\x03\x04"
"""The mark before an entry."""
_DESCRIPTOR, _CENTRAL, _END = b"PK\x07\x08", b"PK\x01\x02", b"PK\x05\x06"
_LOCAL_HEADER = struct.Struct("<2xHH4xIIIHH")
"""Behind the mark: flags, method, checksum, bytes packed and unpacked, and those of the name and the extra fields."""
_BEFORE_END = {
    _CENTRAL: struct.Struct("<24xHHH12x"),
    b"PK\x06\x06": struct.Struct("<Q"),
    b"PK\x06\x07": struct.Struct("<16x"),
    b"PK\x05\x05": struct.Struct("<H"),
}
"""What may stand before the end: by its mark, what follows, of which only the lengths of what is behind it are read."""
_END_RECORD = struct.Struct("<16xH")
"""The length of the comment."""
_ENCRYPTED, _HAS_DESCRIPTOR = 1, 8
_STORED, _DEFLATED = 0, 8
_IN_ZIP64 = 0xFFFFFFFF
_ZIP64 = 1
"""The extra field with an entry's sizes, unpacked and packed, of eight bytes each (4.5.3)."""


@dataclass(frozen=True)
class _Entry:
    flags: int
    method: int
    crc: int
    packed_bytes: int
    size_bytes: int
    name: bytes
    extra: bytes

    @property
    def has_descriptor(self) -> bool:
        return bool(self.flags & _HAS_DESCRIPTOR)

    @property
    def is_folder(self) -> bool:
        # Nothing, deflated, is two bytes.
        is_empty = self.size_bytes == 0 and self.packed_bytes <= 2
        return self.name.endswith(b"/") and is_empty and not self.has_descriptor

    def stored_bytes(self) -> int:
        if self.packed_bytes != _IN_ZIP64:
            return self.packed_bytes
        for kind, content in extra_fields(self.extra):
            if kind == _ZIP64 and len(content) >= 16:
                return int.from_bytes(content[8:16], "little")
        raise OSError("no zip64 size")


class ZipMember:
    """The file in the zip, perhaps in a folder. Raises as a compressed file does, at once and in reads: EOFError where
    the zip is cut off, OSError or zlib.error where it is damaged, GoesOnError.
    """

    def __init__(self, source: Reader) -> None:
        """
        Raises:
            ArchiveWrongKindError: it holds no file, or one that cannot be read as a stream.
        """
        self._source = source
        self._position = 0
        self._pending = bytearray()
        entry = self._pass_folders(self._exactly(4))
        if isinstance(entry, bytes):
            raise ArchiveWrongKindError("The zip holds no file.", next_step="Send the file that is the dump.")
        if entry.flags & _ENCRYPTED:
            raise ArchiveWrongKindError("The zip is encrypted.", next_step="Unpack it and send the file inside.")
        if entry.method == _DEFLATED:
            self._inflate: zlib._Decompress | None = zlib.decompressobj(-15)
            self._left = 0
        elif entry.method == _STORED and not entry.has_descriptor:
            self._inflate = None
            self._left = entry.stored_bytes()
        else:
            raise ArchiveWrongKindError(
                "The zip's member is stored in a way that cannot be read as a stream.",
                next_step="Unpack it and send the file inside.",
            )
        self._entry = entry
        self._crc = 0
        self._is_done = False

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end, when everything behind the file was looked at, too.

        Raises:
            ArchiveWrongKindError: the zip holds another file.
        """
        while not self._is_done:
            found = self._stored(size) if self._inflate is None else self._inflated(self._inflate, size)
            if found:
                self._crc = zlib.crc32(found, self._crc)
                return found
        return b""

    def _stored(self, size: int) -> bytes:
        if not self._left:
            self._finish()
            return b""
        found = self._some(min(size, self._left))
        self._left -= len(found)
        return found

    def _inflated(self, inflate: zlib._Decompress, size: int) -> bytes:
        # Whether the end shows with the last bytes or only after them differs between releases of zlib.
        if inflate.eof:
            self._pending[:0] = inflate.unused_data
            self._position -= len(inflate.unused_data)
            self._finish()
            return b""
        return inflate.decompress(inflate.unconsumed_tail or self._some(PIECE_BYTES), size)

    def _finish(self) -> None:
        self._is_done = True
        mark = self._exactly(4)
        crc = self._entry.crc
        if self._entry.has_descriptor:
            crc, mark = self._descriptor(mark)
        if self._crc != crc:
            raise OSError("wrong CRC")
        behind = self._pass_folders(mark)
        if isinstance(behind, _Entry):
            raise ArchiveWrongKindError(
                "The zip holds more than one file.", next_step="Unpack it and send the one file that is the dump."
            )
        self._pass_directory(behind)
        require_padding(bytes(self._pending), self._source, end=self._position)

    def _descriptor(self, mark: bytes) -> tuple[int, bytes]:
        """The checksum in it, and the next mark."""
        if mark != _DESCRIPTOR:
            raise OSError("no data descriptor")
        crc = int.from_bytes(self._exactly(4), "little")
        # Sizes follow, of 4 or 8 bytes each: the next mark tells.
        sizes = self._exactly(12)
        if sizes[8:] in (_CENTRAL, ZIP):
            return crc, sizes[8:]
        self._exactly(4)
        return crc, self._exactly(4)

    def _pass_folders(self, mark: bytes) -> _Entry | bytes:
        """The next entry that is no folder, or else the mark that stands behind the last one."""
        while mark == ZIP:
            flags, method, crc, packed, size, name, extra = _LOCAL_HEADER.unpack(self._exactly(_LOCAL_HEADER.size))
            entry = _Entry(flags, method, crc, packed, size, self._exactly(name), self._exactly(extra))
            if not entry.is_folder:
                return entry
            self._exactly(entry.packed_bytes)
            mark = self._exactly(4)
        return mark

    def _pass_directory(self, mark: bytes) -> None:
        if mark != _CENTRAL:
            raise OSError("no central directory")
        while mark != _END:
            if mark not in _BEFORE_END:
                raise OSError("a part of the central directory that is not known")
            record = _BEFORE_END[mark]
            self._pass_over(sum(record.unpack(self._exactly(record.size))))
            mark = self._exactly(4)
        (comment_bytes,) = _END_RECORD.unpack(self._exactly(_END_RECORD.size))
        self._pass_over(comment_bytes)

    def _pass_over(self, size: int) -> None:
        while size > 0:
            size -= len(self._some(min(size, PIECE_BYTES)))

    def _some(self, size: int) -> bytes:
        found = bytes(self._pending[:size])
        del self._pending[:size]
        found = found or self._source.read(size)
        if not found:
            raise EOFError
        self._position += len(found)
        return found

    def _exactly(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            found += self._some(size - len(found))
        return found
