"""Whether an object's content is what was stored: by its ETag, and by the sums that MinIO keeps in the content.

The ETag of most objects is the MD5 of their content, or of the MD5s of their parts, which takes no time.
It says nothing of what is encrypted or compressed, and another server's ETag may be no MD5. For those there is the sum
before each block, a HighwayHash, which is slow here: it is asked about so many bytes and no more. Of the server's own
files, users and settings of some hundred bytes each, it decides alone: the server reads none where it does not hold.
"""

from __future__ import annotations

import enum
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from agent.engines.filesystem import FILE
from agent.engines.minio.drive import highway
from agent.engines.minio.drive.xlmeta import ObjectMeta, Version, read, require_one
from common.wording import counted

BLOCK_BYTES = 1 << 20
"""Of content to a sum, in what servers wrote since 2021; before that, ten of them."""
_SUM_BYTES = 32
MOST_OWN_BYTES = 16 << 20
"""Of one of the server's own files, which has some hundred as a rule."""
_PIECE_BYTES = 1 << 20
_ETAG = re.compile(r"([0-9a-f]{32})(?:-([1-9][0-9]{0,4}))?")


class Proof(enum.Enum):
    """What was found out about a version's content."""

    WHOLE = enum.auto()
    DAMAGED = enum.auto()
    UNKNOWN = enum.auto()


class Digest:
    """The MD5 of a part's content, as the stored bytes pass by, with a sum before each block.

    Attributes:
        size: of the content so far.
    """

    def __init__(self, block_bytes: int = BLOCK_BYTES) -> None:
        self.size = 0
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._at = 0
        self._cycle = block_bytes + _SUM_BYTES

    def add(self, piece: bytes | memoryview) -> None:
        """The next stored bytes."""
        left = memoryview(piece)
        while left:
            within = self._at % self._cycle
            step = min(len(left), (_SUM_BYTES if within < _SUM_BYTES else self._cycle) - within)
            if within >= _SUM_BYTES:
                self._md5.update(left[:step])
                self.size += step
            self._at += step
            left = left[step:]

    def digest(self) -> bytes:
        """Of all of it."""
        return self._md5.digest()


class Sums:
    """Compares each block of a part's content with the sum before it, as the stored bytes pass by."""

    def __init__(self, block_bytes: int) -> None:
        self._cycle = block_bytes + _SUM_BYTES
        self._held = bytearray()
        self._is_whole = True

    def add(self, piece: bytes | memoryview) -> None:
        """The next stored bytes."""
        self._held += piece
        while self._is_whole and len(self._held) >= self._cycle:
            self._compare(self._cycle)

    def is_whole(self) -> bool:
        """When all was added."""
        if self._held and self._is_whole:
            self._compare(len(self._held))
        return self._is_whole

    def _compare(self, size: int) -> None:
        block = bytes(self._held[:size])
        del self._held[:size]
        self._is_whole = highway.sum_of(memoryview(block)[_SUM_BYTES:]) == block[:_SUM_BYTES]


@dataclass
class Budget:
    """How many bytes may still be compared with MinIO's sums, of those that an ETag speaks against, and others."""

    doubted: int = 64 << 20
    unknown: int = 16 << 20

    def take(self, proof: Proof, version: Version) -> bool:
        """Whether a version's content may be; it is counted then."""
        size = sum(size for _, size in version.parts) or version.stored_bytes
        if not version.block_bytes:
            return False
        if proof is Proof.DAMAGED and size <= self.doubted:
            self.doubted -= size
            return True
        if proof is Proof.UNKNOWN and size <= self.unknown:
            self.unknown -= size
            return True
        return False


def own_budget() -> Budget:
    """For the server's own files, a few hundred bytes each: of some ten thousand users and buckets."""
    return Budget(doubted=0, unknown=8 << 20)


def kept_bytes(size: int, block_bytes: int) -> int:
    """Of a part with its sums."""
    return size + -(-size // block_bytes) * _SUM_BYTES


def without_sums(stored: bytes, block_bytes: int) -> bytes:
    """The content of what lies on a drive."""
    cycle = block_bytes + _SUM_BYTES
    return b"".join(stored[at + _SUM_BYTES : at + cycle] for at in range(0, len(stored), cycle))


def newest_inline(meta: ObjectMeta) -> bytes:
    """The content of the newest version, where the xl.meta holds it; empty otherwise."""
    for newest in meta.versions[:1]:
        return without_sums(meta.inline.get(newest.id, b""), newest.block_bytes or BLOCK_BYTES)
    return b""


def own(content: bytes, parent: int) -> bytes:
    """What MinIO reads in one of its own files, wherever it lies.

    Args:
        content: of the file's xl.meta.
        parent: descriptor of the directory in which that lies.
    Raises:
        OSError: a part is not there.
        ValueError: it has more than MOST_OWN_BYTES, or nobody can tell what MinIO reads.
    """
    meta = read(content)
    require_one(content)
    [version] = meta.versions
    if not version.parts:
        return newest_inline(meta)
    if version.stored_bytes > MOST_OWN_BYTES:
        raise ValueError("it is too long")
    block_bytes = version.block_bytes or BLOCK_BYTES
    return b"".join(
        without_sums(b"".join(_pieces(version, number, parent)), block_bytes) for number, _ in version.parts
    )


def with_sums(content: bytes, block_bytes: int) -> bytes:
    """As it lies on a drive; about a second for 2 MB."""
    blocks = (content[at : at + block_bytes] for at in range(0, len(content), block_bytes))
    return b"".join(highway.sum_of(block) + block for block in blocks)


def unproven_text(versions: int) -> str:
    """One sentence about versions of which nothing is known."""
    return (
        f"The content of {counted(versions, 'versions')} could not be compared with a sum: what is encrypted or "
        "compressed, or has an ETag that is no MD5, is compared with MinIO's own sums up to 16 MiB in all."
    )


def by_etag(version: Version, md5s: Sequence[bytes]) -> Proof:
    """What its ETag says.

    Args:
        md5s: of its parts' content, in order; of all of it where it is in the xl.meta.
    """
    # What lies in a tier is told by itself.
    if version.is_marker or not version.stored_bytes or version.tier:
        return Proof.WHOLE
    found = _ETAG.fullmatch(version.etag)
    if found is None or version.encryption or version.is_compressed or not version.block_bytes or not md5s:
        return Proof.UNKNOWN
    if found[2] is None:
        if len(md5s) > 1:
            return Proof.UNKNOWN
        computed = md5s[0]
    elif int(found[2]) == len(md5s):
        computed = hashlib.md5(b"".join(md5s), usedforsecurity=False).digest()
    else:
        return Proof.UNKNOWN
    return Proof.WHOLE if computed.hex() == found[1] else Proof.DAMAGED


def unproven_own_text(*, sealed: int, others: int) -> str:
    """Sentences about the server's own files of which nothing is known; empty where there are none."""
    found = []
    if sealed:
        found.append(
            f"{counted(sealed, 'sealed files')} with users, configuration or keys cannot be opened here; an import "
            "opens them, and refuses what is damaged before anything changes."
        )
    if others:
        found.append(f"{counted(others, 'files')} with users or settings could not be compared with MinIO's sums.")
    return " ".join(found)


def inline_proof(version: Version, inline: Mapping[str, bytes], budget: Budget, *, is_own: bool = False) -> Proof:
    """Of a version whose content is in its xl.meta.

    Args:
        is_own: of a file of the server's own, whose sums have to hold whatever its ETag says.
    """
    if not version.stored_bytes:
        return Proof.WHOLE
    stored = inline.get(version.id, b"")
    digest = Digest(version.block_bytes or BLOCK_BYTES)
    digest.add(stored)
    if not stored or (version.block_bytes and digest.size != version.stored_bytes):
        return Proof.DAMAGED
    proof = Proof.UNKNOWN if is_own else by_etag(version, [digest.digest()])
    if proof is Proof.WHOLE or not budget.take(proof, version):
        return proof
    sums = Sums(version.block_bytes)
    sums.add(stored)
    return Proof.WHOLE if sums.is_whole() else Proof.DAMAGED


def proof_on_drive(
    version: Version, inline: Mapping[str, bytes], parent: int, budget: Budget, *, is_own: bool = False
) -> Proof:
    """Of a version on a drive; all of its content is read.

    Args:
        parent: descriptor of the object's directory.
        is_own: as in `inline_proof`.
    """
    if version.is_inline:
        return inline_proof(version, inline, budget, is_own=is_own)
    md5s = []
    for number, size in version.parts:
        digest = Digest(version.block_bytes or BLOCK_BYTES)
        for piece in _pieces(version, number, parent):
            digest.add(piece)
        if version.block_bytes and digest.size != size:
            return Proof.DAMAGED
        md5s.append(digest.digest())
    proof = Proof.UNKNOWN if is_own and md5s else by_etag(version, md5s)
    if proof is Proof.WHOLE or not md5s or not budget.take(proof, version):
        return proof
    for number, _ in version.parts:
        sums = Sums(version.block_bytes)
        for piece in _pieces(version, number, parent):
            sums.add(piece)
        if not sums.is_whole():
            return Proof.DAMAGED
    return Proof.WHOLE


def _pieces(version: Version, number: int, parent: int) -> Iterator[bytes]:
    descriptor = os.open(f"{version.data_directory}/part.{number}", FILE, dir_fd=parent)
    with open(descriptor, "rb", buffering=0) as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece
