"""The content of an object is proven by its ETag, or by MinIO's sums, or said to be unknown."""

from __future__ import annotations

import hashlib
import uuid

import pytest

from agent.engines.minio.drive.contents import BLOCK_BYTES, Budget, Digest, Proof, Sums, inline_proof
from agent.engines.minio.drive.highway import sum_of
from agent.engines.minio.drive.xlmeta import Version

CONTENT = bytes(range(256)) * 3


def _stored(content: bytes, *, block_bytes: int = BLOCK_BYTES) -> bytes:
    """As MinIO keeps it."""
    blocks = [content[at : at + block_bytes] for at in range(0, len(content), block_bytes)]
    return b"".join(sum_of(block) + block for block in blocks)


def _version(etag: str, *, size: int = len(CONTENT), encryption: str = "", block_bytes: int = BLOCK_BYTES) -> Version:
    return Version(
        id=str(uuid.UUID(int=1)),
        is_marker=False,
        modified_ns=0,
        size=size,
        etag=etag,
        data_directory="",
        parts=(),
        encryption=encryption,
        is_compressed=False,
        metadata={},
        stored_bytes=size,
        is_inline=True,
        block_bytes=block_bytes,
    )


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _proof(version: Version, stored: bytes, budget: Budget | None = None) -> Proof:
    return inline_proof(version, {version.id: stored}, budget or Budget())


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        # Of blocks that MinIO RELEASE.2026-02 wrote, of `bytes(n % 251 for n in range(size))`.
        (1, "824f232288e3a62a106404a8adb9e641d7a606fef3b0c81e8b4e10ab6d4944f6"),
        (18, "ebeeb794e38ac4ec2536b40d5d984d5a821d743ef4bbe12817b04a9d191b1f7b"),
        (31, "46d1434308b9e6b43fb301456fcff96e05d216b5fce478d8f1edeb65ea8d950d"),
        (1000, "ff224948163e217ce90fedd5c2cb8f8d11cbbe7f9fb798d67d3cf6701bc274f6"),
    ],
)
def test_the_sum_is_minios(size: int, expected: str) -> None:
    assert sum_of(bytes(number % 251 for number in range(size))).hex() == expected


def test_content_with_the_md5_of_its_etag_is_whole_without_its_sums() -> None:
    version = _version(_md5(CONTENT))

    proof = _proof(version, bytes(32) + CONTENT, Budget(doubted=0, unknown=0))

    assert proof is Proof.WHOLE


def test_a_changed_byte_is_damage() -> None:
    stored = bytearray(_stored(CONTENT))
    stored[-1] ^= 1

    assert _proof(_version(_md5(CONTENT)), bytes(stored)) is Proof.DAMAGED


def test_content_that_is_cut_or_not_there_is_damage() -> None:
    version = _version(_md5(CONTENT))

    assert _proof(version, _stored(CONTENT)[:-1]) is Proof.DAMAGED
    assert _proof(version, b"") is Proof.DAMAGED


@pytest.mark.parametrize("etag", [_md5(b"of another server"), f"{_md5(b'')}-7", "anything"])
def test_an_etag_that_is_no_md5_of_the_content_is_no_damage_where_minios_sums_hold(etag: str) -> None:
    assert _proof(_version(etag), _stored(CONTENT)) is Proof.WHOLE


def test_encrypted_content_is_compared_with_minios_sums() -> None:
    version = _version("", encryption="server")
    stored = bytearray(_stored(CONTENT))
    stored[40] ^= 1

    assert _proof(version, _stored(CONTENT)) is Proof.WHOLE
    assert _proof(version, bytes(stored)) is Proof.DAMAGED


def test_beyond_what_there_is_time_for_nothing_is_known() -> None:
    budget = Budget(unknown=len(CONTENT))
    version = _version("", encryption="server")

    proofs = [_proof(version, _stored(CONTENT), budget) for _ in range(2)]

    assert proofs == [Proof.WHOLE, Proof.UNKNOWN]


def test_content_that_is_kept_in_an_unknown_way_is_not_known() -> None:
    assert _proof(_version(_md5(CONTENT), block_bytes=0), _stored(CONTENT)) is Proof.UNKNOWN


@pytest.mark.parametrize("piece_bytes", [1, 31, 1000, 1 << 20])
def test_pieces_of_any_size_give_the_same(piece_bytes: int) -> None:
    content, block_bytes = CONTENT * 3, 500
    stored = _stored(content, block_bytes=block_bytes)
    digest, sums = Digest(block_bytes), Sums(block_bytes)

    for at in range(0, len(stored), piece_bytes):
        digest.add(stored[at : at + piece_bytes])
        sums.add(stored[at : at + piece_bytes])

    assert (digest.digest().hex(), digest.size) == (_md5(content), len(content))
    assert sums.is_whole()
