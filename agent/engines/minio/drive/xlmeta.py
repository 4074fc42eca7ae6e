"""An object's `xl.meta`: its versions, as MinIO keeps them beside the data.

The format is MinIO's own (xl-storage-format-v2.go): "XL2 ", the file's version, then a MessagePack binary with a header
and a body for each version, a checksum, and the data of small objects. Files of uploads are hostile, so this runs in a
jail for those; whatever does not fit raises ValueError.

What is called text in there is bytes as clients sent them: headers, and names of metadata, may be no UTF-8.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
import xxhash

T = TypeVar("T")
MAGIC = b"XL2 "
_MAJOR = 1
_FIRST_MINOR_WITH_HEADERS = 3
_OBJECT, _MARKER, _LEGACY = 1, 2, 3
_FREE_VERSION = 1
_NO_ID = bytes(16)
_MAX_VERSIONS = 1_000_000
_SEALED_KEYS = ("-s3-sealed-key", "-kms-sealed-key")
_CUSTOMER_KEY = "x-minio-internal-server-side-encryption-sealed-key"
_INLINE = "x-minio-internal-inline-data"
_TIERED = "x-minio-internal-transition-status"
_TIER = "x-minio-internal-transition-tier"
_ELSEWHERE = (_INLINE, _TIERED, _TIER)
"""What says that content is not beside the file."""
_COMPRESSION = "x-minio-internal-compression"
_FIRST_FORMAT = b"1   "
_MAP_MARK = 0x80
"""MessagePack's, of the small map with which the versions began before they had headers."""
_NIL, _FALSE, _TRUE = 0xC0, 0xC2, 0xC3
_SHORT_TEXT, _SHORT_LIST = 0xA0, 0x90
_BINARIES = {0xC4: 1, 0xC5: 2, 0xC6: 4}
_TEXTS = {0xD9: 1, 0xDA: 2, 0xDB: 4}
_LISTS, _MAPS = {0xDC: 2, 0xDD: 4}, {0xDE: 2, 0xDF: 4}
"""By mark, how many bytes tell the length."""
_CHECKSUM_MARK = 0xCE
"""MessagePack's, of an integer of four bytes."""
_CHECKSUM_BYTES = 5
_BLOCK_BYTES = (1 << 20, 10 << 20)
"""Since 2021, and before."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an object.

    Attributes:
        id: a UUID, or "null".
        size: of the content, before compression and encryption.
        data_directory: beside the xl.meta, with files part.N; empty where there is none.
        parts: number and stored size of the content of each, in order.
        encryption: "", "server" (with a key of the KMS) or "customer" (with a key of the caller's).
        metadata: as a client sees it, with tags and the like; bytes that are no UTF-8 are surrogates.
        stored_bytes: of the content as it is kept, compressed or encrypted.
        is_inline: the content is in the xl.meta.
        block_bytes: of the content, before each of which its sum stands; 0: it is kept in another way than we know.
        tier: the remote one that keeps the content, also where a copy is lent back for some days; empty: none.
    """

    id: str
    is_marker: bool
    modified_ns: int
    size: int
    etag: str
    data_directory: str
    parts: tuple[tuple[int, int], ...]
    encryption: str
    is_compressed: bool
    metadata: dict[str, str]
    stored_bytes: int = 0
    is_inline: bool = False
    block_bytes: int = 0
    tier: str = ""


@dataclass(frozen=True, slots=True)
class ObjectMeta:
    """All of a file.

    Attributes:
        header_version: grows with MinIO's releases, which read those up to their own.
        versions: the newest first; without versions that are only there to be freed.
        inline: content that is in the file, with its sums, by the version's id.
        is_intact: its checksum is that of its versions; MinIO takes nothing from a file where it is not.
    """

    header_version: int
    versions: list[Version]
    inline: Mapping[str, bytes] = field(default_factory=dict)
    is_intact: bool = True


class OldFormatError(ValueError):
    """An xl.meta of before 2022, which is not read here; MinIO reads it."""


def header_version(content: bytes) -> int:
    """Of the file; ValueError when it is no xl.meta that has one."""
    if len(content) < 14 or not content.startswith(MAGIC):
        raise ValueError("not an xl.meta")
    if content[4:8] == _FIRST_FORMAT:
        raise OldFormatError("an xl.meta of 2020")
    major, minor = (int.from_bytes(content[at : at + 2], "little") for at in (4, 6))
    if major != _MAJOR:
        raise ValueError(f"an xl.meta of version {major}.{minor}")
    return content[13] if minor >= _FIRST_MINOR_WITH_HEADERS else 1


def read(content: bytes) -> ObjectMeta:
    """The versions in an xl.meta; ValueError when it does not hold together, OldFormatError when it is too old."""
    version = header_version(content)
    if content[8] != 0xC6:
        raise ValueError("an xl.meta without a binary")
    if version < 2 and content[13] & 0xF0 == _MAP_MARK:
        raise OldFormatError("an xl.meta of before 2022")
    if version < 2:
        raise ValueError("an xl.meta of a version that it is not")
    end = 13 + int.from_bytes(content[9:13], "big")
    if end + _CHECKSUM_BYTES > len(content):
        raise ValueError("a cut xl.meta")
    if content[end] != _CHECKSUM_MARK:
        raise ValueError("an xl.meta without a checksum")
    try:
        cursor = _Cursor(content, 13, end)
        cursor.number()
        cursor.number()
        count = cursor.number()
        if not 0 <= count <= _MAX_VERSIONS:
            raise ValueError("an absurd number of versions")
        found = [_version(cursor.binary(), cursor.binary()) for _ in range(count)]
        inline = _inline(content[end + _CHECKSUM_BYTES :])
    except (msgspec.DecodeError, IndexError, KeyError, TypeError, AttributeError, RecursionError) as failure:
        raise ValueError("an xl.meta that cannot be read") from failure
    return ObjectMeta(
        version,
        [one for one in found if one is not None],
        inline,
        is_intact=int.from_bytes(content[end + 1 : end + _CHECKSUM_BYTES], "big") == _checksum(content[13:end]),
    )


def holds_one(content: bytes) -> bool:
    """Whether an xl.meta that can be read holds one version without an id, and nothing by which MinIO might take its
    content from elsewhere than `read`: as all of the server's own files are."""
    try:
        cursor = _Cursor(content, 13, 13 + int.from_bytes(content[9:13], "big"))
        cursor.number()
        cursor.number()
        if cursor.number() != 1:
            return False
        header, body = cursor.binary(), cursor.binary()
        fields = _Cursor(header, 0, len(header)).value()
        inner = _Cursor(body, 0, len(body))
        raw = inner.value()["V2Obj"]
        odd = [name for name in raw.get("MetaSys") or {} if name != _INLINE and name.lower() in _ELSEWHERE]
        return fields[0] == raw["ID"] == _NO_ID and not odd and cursor.is_at_end() and inner.is_at_end()
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def _checksum(versions: bytes) -> int:
    """MinIO's: the lower half of an XXH64."""
    return xxhash.xxh64_intdigest(versions) & 0xFFFFFFFF


def _version(header: bytes, body: bytes) -> Version | None:
    fields = msgspec.msgpack.decode(header)
    if int(fields[4]) & _FREE_VERSION:
        return None
    raw = _body(body)
    kind = int(fields[3])
    if kind == _MARKER:
        marker = raw["DelObj"]
        return Version(_id(marker["ID"]), True, int(marker["MTime"]), 0, "", "", (), "", False, {})
    if kind == _LEGACY:
        raise ValueError("an object of before 2020")
    if kind != _OBJECT:
        raise ValueError("an unknown kind of version")
    return _object(raw["V2Obj"])


def _body(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.msgpack.decode(body, type=dict[str, Any])
    except UnicodeDecodeError:
        return dict(_Cursor(body, 0, len(body)).value())


def _object(raw: dict[str, Any]) -> Version:
    internal = {str(name).lower(): value for name, value in (raw.get("MetaSys") or {}).items()}
    visible = {str(name): str(value) for name, value in (raw.get("MetaUsr") or {}).items()}
    sizes = [int(size) for size in raw.get("PartSizes") or []]
    actual = [int(size) for size in raw.get("PartASizes") or []]
    encryption = "server" if any(name.endswith(_SEALED_KEYS) for name in internal) else ""
    if _CUSTOMER_KEY in internal:
        encryption = "customer"
    tier = bytes(internal.get(_TIER) or b"?") if internal.get(_TIERED) == b"complete" else b""
    is_elsewhere = _INLINE in internal or bool(tier)
    directory = bytes(raw.get("DDir") or _NO_ID)
    has_data = int(raw["Size"]) > 0 and not is_elsewhere and directory != _NO_ID
    etag = visible.pop("etag", "")
    # On one drive: one data block, no parity, HighwayHash256S.
    is_known = (raw.get("EcM"), raw.get("EcN"), raw.get("CSumAlgo")) == (1, 0, 1) and raw.get("EcBSize") in _BLOCK_BYTES
    return Version(
        id=_id(raw["ID"]),
        is_marker=False,
        modified_ns=int(raw["MTime"]),
        size=sum(actual) if len(actual) == len(sizes) and all(size >= 0 for size in actual) else int(raw["Size"]),
        # A sealed ETag is other bytes on each server.
        etag="" if encryption else etag,
        data_directory=str(uuid.UUID(bytes=directory)) if has_data else "",
        parts=tuple(zip((int(number) for number in raw.get("PartNums") or []), sizes, strict=True)) if has_data else (),
        encryption=encryption,
        is_compressed=_COMPRESSION in internal,
        metadata=visible,
        stored_bytes=int(raw["Size"]),
        is_inline=_INLINE in internal,
        block_bytes=int(raw["EcBSize"]) if is_known else 0,
        tier=tier.decode(errors="replace"),
    )


def _id(raw: bytes | None) -> str:
    return "null" if not raw or raw == _NO_ID else str(uuid.UUID(bytes=bytes(raw)))


def _inline(data: bytes) -> dict[str, bytes]:
    """The data in the file, by version; raises when that part is cut."""
    if not data:
        return {}
    if data[0] != 1:
        raise ValueError("inline data of an unknown version")
    return only_once(data[1:], msgspec.msgpack.decode(data[1:], type=dict[str, bytes]))


def only_once(encoded: bytes, decoded: dict[str, T]) -> dict[str, T]:
    """A map as it was decoded; ValueError where it names something twice: MinIO may take the other of the two."""
    cursor = _Cursor(encoded, 0, len(encoded))
    if cursor.entries() != len(decoded):
        raise ValueError("the same name twice")
    return decoded


class _Cursor:
    """MessagePack values that follow each other."""

    def __init__(self, content: bytes, start: int, end: int) -> None:
        self._content = content
        self._at = start
        self._end = end

    def number(self) -> int:
        """An integer."""
        first = self._take(1)[0]
        if first < 0x80:
            return first
        if first >= 0xE0:
            return first - 0x100
        lengths = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
        return int.from_bytes(self._take(lengths[first]), "big", signed=first >= 0xD0)

    def binary(self) -> bytes:
        """A binary."""
        return self._take(self._length(_BINARIES[self._take(1)[0]]))

    def entries(self) -> int:
        """Of a map, whose names and values follow."""
        first = self._take(1)[0]
        return self._length(_MAPS[first]) if first in _MAPS else first & 0x0F

    def value(self) -> Any:
        """Any of those in a version's body; bytes of text that are no UTF-8 become surrogates."""
        first = self._take(1)[0]
        if first == _NIL:
            return None
        if first in (_FALSE, _TRUE):
            return first == _TRUE
        if first in _BINARIES:
            return self._take(self._length(_BINARIES[first]))
        if first in _TEXTS or first & 0xE0 == _SHORT_TEXT:
            size = self._length(_TEXTS[first]) if first in _TEXTS else first & 0x1F
            return self._take(size).decode(errors="surrogateescape")
        if first in _LISTS or first & 0xF0 == _SHORT_LIST:
            count = self._length(_LISTS[first]) if first in _LISTS else first & 0x0F
            return [self.value() for _ in range(count)]
        if first in _MAPS or first & 0xF0 == _MAP_MARK:
            self._at -= 1
            return self._map()
        self._at -= 1
        return self.number()

    def is_at_end(self) -> bool:
        """Whether nothing is left."""
        return self._at == self._end

    def _map(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for _ in range(self.entries()):
            name = self.value()
            if not isinstance(name, str) or name in found:
                raise ValueError("a name that is none, or twice")
            found[name] = self.value()
        return found

    def _length(self, size: int) -> int:
        return int.from_bytes(self._take(size), "big")

    def _take(self, size: int) -> bytes:
        if self._at + size > self._end:
            raise ValueError("a cut xl.meta")
        self._at += size
        return self._content[self._at - size : self._at]
