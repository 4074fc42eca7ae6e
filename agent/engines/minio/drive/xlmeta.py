"""An object's `xl.meta`: its versions, as MinIO keeps them beside the data.

The format is MinIO's own (xl-storage-format-v2.go): "XL2 ", the file's version, then a MessagePack binary with a header
and a body for each version, a checksum, and the data of small objects. Files of uploads are hostile, so this runs in a
jail for those; whatever does not fit raises ValueError.

What is called text in there is bytes as clients sent them: headers, and names of metadata, may be no UTF-8.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import msgspec
import xxhash

from agent.engines.minio.drive.xlmeta_fields import (
    BLOCK_BYTES,
    FREE_VERSION,
    INLINE,
    MARKER,
    OBJECT,
    TIERED,
    is_purged,
    require_header,
    require_marker,
    require_object,
)

T = TypeVar("T")
MAGIC = b"XL2 "
_MAJOR = 1
_FIRST_MINOR_WITH_HEADERS, _FIRST_HEADER_VERSION = 3, 2
_HEAD_BYTES = 8
"""Magic and version."""
_NO_ID = bytes(16)
_NULL = "null"
"""In place of an id."""
_MAX_VERSIONS = 1_000_000
_SEALED_KEYS = ("-S3-Sealed-Key", "-Kms-Sealed-Key")
_CUSTOMER_KEY = "X-Minio-Internal-Server-Side-Encryption-Sealed-Key"
_TIER = "x-minio-internal-transition-tier"
_OF_OWN = frozenset((INLINE, "x-minio-internal-erasure-upgraded"))
"""All that MinIO says of files of its own beside what a client sees; anything else may have it read another content,
or none: that it is compressed, encrypted, in a tier, or about to be purged."""
_COMPRESSION = "X-Minio-Internal-compression"
"""As all of these, in MinIO's own case, which knows no other."""
_FIRST_FORMAT = b"1   "
_MAP_MARK = 0x80
"""MessagePack's, of the small map with which the versions began before they had headers."""
_NIL, _FALSE, _TRUE = 0xC0, 0xC2, 0xC3
_SHORT_TEXT, _SHORT_LIST = 0xA0, 0x90
_BINARIES = {0xC4: 1, 0xC5: 2, 0xC6: 4}
_TEXTS = {0xD9: 1, 0xDA: 2, 0xDB: 4}
_LISTS, _MAPS = {0xDC: 2, 0xDD: 4}, {0xDE: 2, 0xDF: 4}
"""By mark, how many bytes tell the length."""
_BINARY_MARK, _CHECKSUM_MARK = 0xC6, 0xCE
"""MessagePack's, of a binary with a length of four bytes, and of an integer of four."""
_PARTS = {OBJECT: "V2Obj", MARKER: "DelObj"}
"""Where in a version its fields are, by its kind."""
_decode = msgspec.msgpack.Decoder().decode
_decode_outer = msgspec.msgpack.Decoder(dict[str, msgspec.Raw]).decode
_decode_map = msgspec.msgpack.Decoder(dict[str, Any]).decode
_decode_inline = msgspec.msgpack.Decoder(dict[str, bytes]).decode
_UNFIT = (
    msgspec.DecodeError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RecursionError,
    OverflowError,
    MemoryError,
)


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an object.

    Attributes:
        id: a UUID, or "null".
        is_marker: it says that the object was deleted, or was itself deleted for good and is not purged yet.
        size: of the content, before compression and encryption.
        data_directory: beside the xl.meta, with files part.N; empty where there is none.
        parts: number and stored size of the content of each, in order.
        encryption: "", "server" (with a key of the KMS) or "customer" (with a key of the caller's).
        metadata: as a client sees it, with tags and the like; bytes that are no UTF-8 are surrogates.
        stored_bytes: of the content as it is kept, compressed or encrypted.
        is_inline: the content is in the xl.meta.
        is_read_otherwise: MinIO gives another content than the version says: one that is in the xl.meta, too, or that
            in the xl.meta which is said to be of several parts, each of which it reads from the beginning.
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
    is_read_otherwise: bool = False


@dataclass(frozen=True, slots=True)
class ObjectMeta:
    """All of a file.

    Attributes:
        header_version: grows with MinIO's releases, which read those up to their own.
        versions: the newest first; without versions that are only there to be freed.
        freed: the tier of each of those, in which their content is to be deleted; "?" where they name none.
        inline: content that is in the file, with its sums, by the version's id.
        is_intact: its checksum is that of its versions; MinIO takes nothing from a file where it is not.
    """

    header_version: int
    versions: list[Version]
    inline: Mapping[str, bytes] = field(default_factory=dict)
    freed: tuple[str, ...] = ()
    is_intact: bool = True


class MadeUpError(ValueError):
    """An xl.meta that no MinIO with a single drive writes, with a checksum that holds, or of a form that needs none: no
    drive made that of another one, and a MinIO that reads it may end (by a block size of 0, for example)."""


def header_version(content: bytes) -> int:
    """Of the file; ValueError when it is no xl.meta that has one, as `read`."""
    if len(content) < 14 or not content.startswith(MAGIC):
        # Cut since it is absurdly long, or what a MinIO takes for one of before 2020.
        may_be_read = content == MAGIC or content.lstrip().startswith(b"{")
        raise (MadeUpError if may_be_read else ValueError)("not an xl.meta")
    major, minor = (int.from_bytes(content[at : at + 2], "little") for at in (4, 6))
    is_of_2020 = content[4:_HEAD_BYTES] == _FIRST_FORMAT
    if major > _MAJOR and not is_of_2020:
        raise ValueError(f"an xl.meta of version {major}.{minor}")
    if is_of_2020 or major < _MAJOR or minor < _FIRST_MINOR_WITH_HEADERS:
        if is_of_2020 or _begins_map(content, minor):
            raise MadeUpError("an xl.meta of before 2022, when no MinIO had a single drive of this kind")
        raise ValueError("an xl.meta of a version that it is not")
    return content[13]


def _begins_map(content: bytes, minor: int) -> bool:
    """Whether it is read as one of before 2022, which had no headers."""
    at = _HEAD_BYTES
    if minor:
        at += 1 + _BINARIES.get(content[at], 0)
    return at >= len(content) or content[at] in _MAPS or content[at] & 0xF0 == _MAP_MARK


def read(content: bytes) -> ObjectMeta:
    """The versions in an xl.meta; ValueError when it does not hold together, MadeUpError where somebody has made it
    so."""
    version = header_version(content)
    try:
        cursor = _Cursor(content, _HEAD_BYTES, len(content))
        versions, marks = cursor.binary(), [content[_HEAD_BYTES], content[cursor.at]]
        is_intact = cursor.number() == _checksum(versions)
    except LookupError as failure:
        raise ValueError("an xl.meta without versions and their checksum") from failure
    try:
        if version < _FIRST_HEADER_VERSION or marks != [_BINARY_MARK, _CHECKSUM_MARK]:
            raise ValueError("an xl.meta of another form")
        found, freed = _versions(versions, version, is_intact=is_intact)
    except _UNFIT as failure:
        raise (MadeUpError if is_intact else ValueError)(f"an xl.meta that cannot be read: {failure}") from failure
    try:
        inline = _inline(content[cursor.at :])
    except _UNFIT as failure:
        raise ValueError("an xl.meta with data that cannot be read") from failure
    if inline.keys() & {version.data_directory for version in found}:
        # Where a MinIO looks for it too.
        raise (MadeUpError if is_intact else ValueError)("an xl.meta with data that is named by its directory")
    found = [replace(one, is_read_otherwise=True) if _has_another_within(one, inline) else one for one in found]
    return ObjectMeta(version, found, inline, freed, is_intact=is_intact)


def _has_another_within(version: Version, inline: Mapping[str, bytes]) -> bool:
    """Of a version without an id, MinIO takes what is in the file, whether or not the version says that it is there
    (ReadVersion in its cmd/xl-storage.go). It may do so by itself, and fail with it: where a version was copied onto
    its key, and then overwritten with content that is too large for the file, the data of before is left there.
    """
    return bool(version.parts) and version.id == _NULL and bool(inline.get(_NULL))


def require_one(content: bytes) -> None:
    """Of an xl.meta that can be read: that it holds one version without an id, and nothing by which MinIO might take
    its content from elsewhere than `read`, as all of the server's own files do; ValueError otherwise."""
    if not _holds_one(content):
        raise ValueError("it is kept otherwise than MinIO keeps any")


def _holds_one(content: bytes) -> bool:
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
        is_plain = _OF_OWN.issuperset(raw.get("MetaSys") or ()) and len(raw.get("PartNums") or ()) <= 1
        is_plain = is_plain and fields[0] == raw["ID"] == _NO_ID
        return is_plain and cursor.is_at_end() and inner.is_at_end()
    except _UNFIT:
        return False


def _checksum(versions: bytes) -> int:
    """MinIO's: the lower half of an XXH64."""
    return xxhash.xxh64_intdigest(versions) & 0xFFFFFFFF


def _versions(content: bytes, version: int, *, is_intact: bool) -> tuple[list[Version], tuple[str, ...]]:
    """Those of ObjectMeta, and what it has as `freed`. With a checksum that holds, they have to be as a server writes
    them; else as they can be read."""
    cursor = _Cursor(content, 0, len(content))
    cursor.number()
    cursor.number()
    count = cursor.number()
    if not 0 <= count <= _MAX_VERSIONS:
        raise ValueError("an absurd number of versions")
    found: list[Version] = []
    freed: list[str] = []
    times: list[int] = []
    for _ in range(count):
        header, raw = _decode(cursor.binary()), _body(cursor.binary())
        kind, flags = header[3], header[4]
        if kind not in _PARTS or raw["Type"] != kind:
            raise ValueError("a version of a kind that is unknown, or another than its header's")
        raw = raw[_PARTS[kind]]
        if is_intact:
            (require_object if kind == OBJECT else require_marker)(raw)
            require_header(header, kind, raw, version=version)
            times.append(raw["MTime"])
        if flags & FREE_VERSION:
            freed.append(_tier(raw.get("MetaSys") or {}))
        else:
            found.append(_object(raw) if kind == OBJECT else _marker(raw))
    if times != sorted(times, reverse=True):
        raise ValueError("versions that are not in their order")
    return found, tuple(freed)


def _body(body: bytes) -> dict[str, Any]:
    try:
        outer = only_once(body, _decode_outer(body))
        return {
            name: only_once(value, _decode_map(value)) if name in _PARTS.values() else _decode(value)
            for name, value in outer.items()
        }
    except UnicodeDecodeError:
        cursor = _Cursor(body, 0, len(body))
        found = dict(cursor.value())
        if not cursor.is_at_end():
            raise ValueError("more than a version") from None
        return found


def _int(value: object) -> int:
    if type(value) is not int:
        raise TypeError("no whole number")
    return value


def _marker(raw: dict[str, Any]) -> Version:
    return Version(_id(raw["ID"]), True, _int(raw["MTime"]), 0, "", "", (), "", False, {})


def _object(raw: dict[str, Any]) -> Version:
    internal = {str(name): value for name, value in (raw.get("MetaSys") or {}).items()}
    if is_purged(internal):
        return _marker(raw)
    visible = {str(name): str(value) for name, value in (raw.get("MetaUsr") or {}).items()}
    numbers, sizes, actual = (
        [_int(number) for number in raw.get(name) or []] for name in ("PartNums", "PartSizes", "PartASizes")
    )
    has_sizes = len(numbers) == len(sizes) == len(actual) and _int(raw["Size"]) >= 0
    encryption = "server" if any(name.endswith(_SEALED_KEYS) for name in internal) else ""
    if _CUSTOMER_KEY in internal:
        encryption = "customer"
    tier = _tier(internal) if internal.get(TIERED) == b"complete" else ""
    # MinIO once left this where it had moved the content to a tier.
    is_inline = INLINE in internal and not tier
    has_data = raw["Size"] > 0 and not is_inline and not tier
    etag = visible.pop("etag", "")
    return Version(
        id=_id(raw["ID"]),
        is_marker=False,
        modified_ns=_int(raw["MTime"]),
        size=sum(actual) if has_sizes and all(size >= 0 for size in actual) else _int(raw["Size"]),
        # A sealed ETag is other bytes on each server.
        etag="" if encryption else etag,
        data_directory=_uuid(raw.get("DDir") or _NO_ID) if has_data else "",
        parts=tuple(zip(numbers, sizes, strict=True)) if has_data else (),
        encryption=encryption,
        is_compressed=_COMPRESSION in internal,
        metadata=visible,
        stored_bytes=raw["Size"],
        is_inline=is_inline,
        is_read_otherwise=is_inline and len(numbers) > 1,
        block_bytes=raw["EcBSize"] if raw.get("EcBSize") in BLOCK_BYTES else 0,
        tier=tier,
    )


def _tier(internal: Mapping[str, Any]) -> str:
    tier = internal.get(_TIER)
    return tier.decode(errors="replace") if tier and isinstance(tier, bytes) else "?"


def _id(raw: bytes | None) -> str:
    return _NULL if not raw or raw == _NO_ID else _uuid(raw)


def _uuid(raw: object) -> str:
    if not isinstance(raw, bytes):
        raise TypeError("no id")
    return str(uuid.UUID(bytes=raw))


def _inline(data: bytes) -> dict[str, bytes]:
    """The data in the file, by version; raises when that part is cut."""
    if not data:
        return {}
    if data[0] != 1:
        raise ValueError("inline data of an unknown version")
    return only_once(data[1:], _decode_inline(data[1:]))


def only_once(encoded: bytes | msgspec.Raw, decoded: dict[str, T]) -> dict[str, T]:
    """A map as it was decoded; ValueError where it names something twice: MinIO may take the other of the two."""
    start = bytes(memoryview(encoded)[:5])
    if _Cursor(start, 0, len(start)).entries() != len(decoded):
        raise ValueError("the same name twice")
    return decoded


class _Cursor:
    """MessagePack values that follow each other.

    Attributes:
        at: where the next one begins.
    """

    def __init__(self, content: bytes, start: int, end: int) -> None:
        self._content = content
        self.at = start
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
            self.at -= 1
            return self._map()
        self.at -= 1
        return self.number()

    def is_at_end(self) -> bool:
        """Whether nothing is left."""
        return self.at == self._end

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
        if self.at + size > self._end:
            raise ValueError("a cut xl.meta")
        self.at += size
        return self._content[self.at - size : self.at]
