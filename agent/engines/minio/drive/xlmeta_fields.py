"""What the fields of a version in an xl.meta have to be: a MinIO divides by some, and takes others for places in lists,
without a look, so that a value that none writes ends the server. Facts of MinIO's cmd/xl-storage-format-v2.go.

All functions raise ValueError for what no server with a single drive has written; there are such since 2022.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

OBJECT, MARKER = 1, 2
FREE_VERSION, _USES_DIRECTORY, _IS_INLINE = 1, 2, 4
"""Of a version's header."""
_INTERNAL = "x-minio-internal-"
"""What is named so, a MinIO takes from where clients' metadata are too."""
FREE = "x-minio-internal-free-version"
INLINE = "x-minio-internal-inline-data"
TIERED = "x-minio-internal-transition-status"
_CHECKSUMS = "x-minio-internal-crc"
PURGED = "x-minio-internal-purgestatus"
_PURGE_STATUS = re.compile(rb"(?:[^=;,]+=(?:PENDING|COMPLETE|FAILED);)+|PENDING|COMPLETE|FAILED")
"""By target. In another status MinIO may see none, and serve the object (bucket-replication-utils.go)."""
_ENCRYPTION = "X-Minio-Internal-Server-Side-Encryption-"
"""Any such name, and an object counts as encrypted."""
_SEALED = (
    "X-Minio-Internal-Server-Side-Encryption-Sealed-Key",
    "X-Minio-Internal-Server-Side-Encryption-S3-Sealed-Key",
    "X-Minio-Internal-Server-Side-Encryption-Kms-Sealed-Key",
)
_ID_BYTES = 16
_SINGLE_DRIVE = {"EcAlgo": 1, "EcM": 1, "EcN": 0, "EcIndex": 1, "EcDist": [1], "CSumAlgo": 1}
"""One data block, no parity, HighwayHash256S."""
BLOCK_BYTES = (1 << 20, 10 << 20)
"""Since 2021, and before."""
_NAMES = frozenset(
    ("ID", "DDir", *_SINGLE_DRIVE, "EcBSize", "PartNums", "PartETags", "PartSizes", "PartASizes", "Size", "MTime")
)
"""Always there; a MinIO leaves what is not there as a field of the same name before had it."""
_MOST_PARTS = 10_000
_MOST = 1 << 63
_HEADER_FIELDS = {2: 5, 3: 7}
"""How many a header has, by its version."""
_HASH_BYTES = 4
_COMPOSITE, _WITH_PARTS = 64, 128
_SUM_BYTES = ((8, 4), (16, 4), (4, 20), (2, 32), (256, 8))
"""Of a checksum that a client gave, by its flag."""
_NUMBER_BYTES = 10


def require_object(raw: Mapping[str, Any]) -> None:
    """Of an object."""
    _require_names(raw, _NAMES)
    _require_common(raw)
    _require(_is_id(raw["DDir"]), "DDir")
    for name, value in _SINGLE_DRIVE.items():
        _require(type(raw[name]) is type(value) and raw[name] == value, name)
    _require(type(raw["EcDist"][0]) is int, "EcDist")
    _require(type(raw["EcBSize"]) is int and raw["EcBSize"] in BLOCK_BYTES, "EcBSize")
    numbers, sizes = raw["PartNums"], raw["PartSizes"]
    _require(_are_numbers(numbers, 1, _MOST_PARTS + 1), "PartNums")
    _require(_are_numbers(sizes, 0, _MOST) and len(sizes) == len(numbers), "PartSizes")
    actual = _given(raw, "PartASizes", [])
    _require(_are_numbers(actual, -1, _MOST) and len(actual) == len(numbers), "PartASizes")
    for name, kind in (("PartETags", str), ("PartIdx", bytes)):
        values = _given(raw, name, [])
        _require(isinstance(values, list) and all(isinstance(value, kind) for value in values), name)
        _require(len(values) in (0, len(numbers)), name)
    _require(_is_number(raw["Size"], 0, _MOST) and raw["Size"] == sum(sizes), "Size")
    visible = _given(raw, "MetaUsr", {})
    _require(isinstance(visible, dict) and all(isinstance(text, str) for text in visible.values()), "MetaUsr")
    _require(not any(str(name).lower().startswith(_INTERNAL) for name in visible), "MetaUsr")
    internal = _given(raw, "MetaSys", {})
    _require([name for name in internal if str(name).lower() == PURGED] in ([], [PURGED]), "purge status")
    _require(not internal.get(PURGED) or is_purged(internal), "purge status")
    if not any(name in internal for name in _SEALED):
        _require(not any(str(name).startswith(_ENCRYPTION) for name in internal), "key")
        _require_checksums(internal.get(_CHECKSUMS, b""))


def is_purged(internal: Mapping[str, Any]) -> bool:
    """Whether an object was deleted for good and stays only until another server has heard of it, as clients see."""
    status = internal.get(PURGED)
    return isinstance(status, bytes) and _PURGE_STATUS.fullmatch(status) is not None


def require_marker(raw: Mapping[str, Any]) -> None:
    """Of a delete marker."""
    _require_names(raw, frozenset(("ID", "MTime")))
    _require_common(raw)


def require_header(fields: Any, kind: int, raw: Mapping[str, Any], *, version: int) -> None:
    """Of what stands before a version, for a look without reading it: all but a hash of it says what that says.

    Args:
        kind: OBJECT or MARKER.
        raw: the version.
        version: of the header.
    """
    _require(isinstance(fields, list) and len(fields) == _HEADER_FIELDS.get(version, len(fields)), "header")
    of_id, of_time, of_hash, of_kind, flags, *blocks = fields
    _require(all(type(number) is int for number in (of_time, of_kind, flags, *blocks)), "header")
    _require(of_id == raw["ID"] and of_time == raw["MTime"] and of_kind == kind, "header")
    _require(isinstance(of_hash, bytes) and len(of_hash) == _HASH_BYTES, "header")
    internal = _given(raw, "MetaSys", {})
    is_object = kind == OBJECT
    expected = _USES_DIRECTORY * is_object | _IS_INLINE * (is_object and INLINE in internal)
    expected |= FREE_VERSION * (not is_object and FREE in internal)
    # Of a copy that is lent back from a tier it says what held when it was written.
    unknown = _USES_DIRECTORY if internal.get(TIERED) == b"complete" else 0
    _require(flags | unknown == expected | unknown, "header")
    # None where an older release wrote the version.
    _require(not blocks or blocks in ([0, 0], [0, 1 * is_object]), "header")


def _require(holds: bool, name: str) -> None:
    if not holds:
        raise ValueError(f"an xl.meta whose {name} no MinIO writes")


def _given(raw: Mapping[str, Any], name: str, empty: Any) -> Any:
    return empty if raw.get(name) is None else raw[name]


def _require_names(raw: Mapping[str, Any], names: frozenset[str]) -> None:
    _require(isinstance(raw, dict) and names <= raw.keys(), "fields")
    # Names may be binaries too, and a MinIO takes them for the same.
    _require(all(isinstance(name, str) for name in raw), "fields")


def _require_common(raw: Mapping[str, Any]) -> None:
    _require(_is_id(raw["ID"]), "ID")
    _require(_is_number(raw["MTime"], 1, _MOST), "MTime")
    internal = _given(raw, "MetaSys", {})
    are_right = isinstance(internal, dict) and all(
        isinstance(name, str) and isinstance(value, bytes) for name, value in internal.items()
    )
    # Some it looks for in its own case alone, others in any.
    _require(are_right and len({name.lower() for name in internal}) == len(internal), "MetaSys")


def _is_id(value: object) -> bool:
    return isinstance(value, bytes) and len(value) == _ID_BYTES


def _is_number(value: object, start: int, end: int) -> bool:
    return type(value) is int and start <= value < end


def _are_numbers(values: object, start: int, end: int) -> bool:
    return isinstance(values, list) and all(_is_number(value, start, end) for value in values)


def _require_checksums(raw: bytes) -> None:
    """What clients gave beside the content, with one for each part: a server takes room for as many as it says. It
    reads them in two ways, which differ in where they look for that number."""
    for is_all in (True, False):
        at, most = 0, _MOST_PARTS
        while at < len(raw):
            kind, at = _number(raw, at)
            size = next((size for flag, size in _SUM_BYTES if kind & flag), 0)
            if not size or len(raw) - at < size:
                break
            at += size
            if is_all and not kind & _COMPOSITE:
                continue
            parts, after = _number(raw, at)
            if kind & _WITH_PARTS:
                _require(parts <= _MOST_PARTS, _CHECKSUMS)
                there = min(parts, (len(raw) - after) // size)
                _require(there <= most, _CHECKSUMS)
                at = after + there * size
                most = parts if not is_all else most
            elif is_all:
                at = after


def _number(raw: bytes, at: int) -> tuple[int, int]:
    """Of seven bits to a byte, the lowest first, and where it ends."""
    found = 0
    for shift, byte in enumerate(raw[at : at + _NUMBER_BYTES]):
        found |= (byte & 0x7F) << (7 * shift)
        if not byte & 0x80:
            return found & ((1 << 64) - 1), at + shift + 1
    return 0, len(raw)
