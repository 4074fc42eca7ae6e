"""Fingerprints of buckets: of each a sum over its versions, so that nobody has to see them in one order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import msgspec

from common.errors import ArchiveDamagedError
from common.fingerprints import Fingerprint
from common.wording import some_of

_MODULUS = 1 << 256
_NAMED = 5


def number_of(fields: Iterable[str]) -> int:
    """What a version adds to its bucket's sum: the SHA-256 of all that tells it from others."""
    raw = b"".join(
        b"%d:%b" % (len(field), field) for field in (text.encode(errors="surrogateescape") for text in fields)
    )
    return int.from_bytes(hashlib.sha256(raw).digest(), "big")


def short_number_of(text: str) -> int:
    """Eight bytes that tell texts apart where millions of them have to be held."""
    digest = hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big")


class BucketSum(msgspec.Struct):
    """So far.

    Attributes:
        settings: of the bucket, in a few words; None: they are not in the fingerprint.
    """

    versions: int = 0
    bytes: int = 0
    number: int = 0
    settings: str | None = None

    def text(self) -> str:
        """As a part of a fingerprint."""
        settings = "" if self.settings is None else f", settings {self.settings}"
        return f"{self.versions} versions, {self.bytes} bytes, {self.number % _MODULUS:064x}{settings}"


class Sums:
    """Adds up versions as they come.

    Attributes:
        buckets: by name, so far.
    """

    def __init__(self, scheme: str) -> None:
        self._scheme = scheme
        self._settings: dict[str, BucketSum] = {}
        self.buckets: dict[str, BucketSum] = {}

    def bucket(self, name: str) -> BucketSum:
        """One that is there, with or without versions."""
        return self.buckets.setdefault(name, BucketSum())

    def add(self, bucket: str, number: int, size: int) -> None:
        """One version."""
        found = self.bucket(bucket)
        found.versions += 1
        found.bytes += size
        found.number += number

    def add_setting(self, bucket: str, file: str, sha256: str) -> None:
        """A file with settings; only where they are told apart from the buckets' own sums."""
        found = self._settings.setdefault(bucket, BucketSum())
        found.versions += 1
        found.number += number_of((file, sha256))

    def fingerprint(self, others: Mapping[str, str] = {}) -> Fingerprint:
        """Of all that was added, and of other parts."""
        settings = {
            f"settings of bucket {name}": f"{found.versions} files, {found.number % _MODULUS:064x}"
            for name, found in self._settings.items()
        }
        return fingerprint_of(
            self._scheme, {name: found.text() for name, found in self.buckets.items()}, {**settings, **others}
        )


def fingerprint_of(scheme: str, buckets: Mapping[str, str], others: Mapping[str, str] = {}) -> Fingerprint:
    """From the text of each bucket, and other parts."""
    return Fingerprint.of(scheme, {f"bucket {name}": text for name, text in buckets.items()} | dict(others))


def require_as_exported(carried: Fingerprint | None, found: Fingerprint, *, only: str = "", beside: str = "") -> None:
    """Compare what an archive says of itself with what is in it; nothing where it was told in another way.

    Args:
        carried: what it says; None: nothing.
        only: the one bucket that was looked at; empty: all.
        beside: what else is to be said of a difference.
    Raises:
        ArchiveDamagedError: it is not what was exported.
    """
    if carried is None or carried.scheme != found.scheme:
        return
    # Where there are many buckets they are told in groups, and nothing tells of one alone.
    names = {f"bucket {only}"} & carried.parts.keys() if only else carried.parts.keys() | found.parts.keys()
    if differing := [name for name in sorted(names) if carried.parts.get(name) != found.parts.get(name)]:
        raise ArchiveDamagedError(
            f"The archive does not hold what it held when it was exported: {some_of(differing, _NAMED)}{beside}; "
            "nothing was changed.",
            next_step="Take another copy of the file, or export again.",
        )
