"""What a file's keys hold, told in a few lines whatever their number and order: a sum of their hashes.

A key's hash is over when it expires, its name and its content, so a sum changes with any of these.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from agent.engines.rdb.contents import DIGEST_BYTES, MODULUS

SCHEME = "redis/4"
"""Of what `ContentSums.parts` tells; see common.fingerprints."""
NO_MOMENT = b"\xff" * 8
"""Instead of the moment when a key expires."""
KEY_DIGEST_BYTES = 16
"""Of each key in `ContentSums.keys`: half for its name, half for all of it."""
_TOLD_BYTES = 16
"""Of a digest of a sum."""


class ContentSums:
    """By database and kind, and of function libraries.

    Attributes:
        keys: by database, one digest after the other, where they are wanted.
    """

    def __init__(self, *, has_keys: bool) -> None:
        self.keys: dict[int, bytearray] | None = {} if has_keys else None
        self._sums: dict[tuple[int, str], tuple[int, int]] = {}
        self._functions: list[bytes] = []

    def add(self, database: int, kind: str, count: int, total: int) -> None:
        """Keys, and the sum of their hashes as numbers."""
        before, sum_before = self._sums.get((database, kind), (0, 0))
        self._sums[database, kind] = before + count, (sum_before + total) % MODULUS

    def add_key(self, database: int, kind: str, name: bytes, digest: bytes, *, is_listed: bool) -> None:
        """One key.

        Args:
            is_listed: it is to be among `keys` where they are wanted.
        """
        self.add(database, kind, 1, int.from_bytes(digest))
        if self.keys is not None and is_listed:
            named = hashlib.blake2b(name, digest_size=KEY_DIGEST_BYTES // 2).digest()
            self.keys.setdefault(database, bytearray()).extend(named + digest[: KEY_DIGEST_BYTES // 2])

    def add_function(self, code: bytes) -> None:
        self._functions.append(hashlib.blake2b(code).digest())

    def parts(self) -> dict[str, str]:
        """For people to compare; see common.fingerprints.Fingerprint."""
        parts = {
            f"{kind} keys of database {database}": f"{count} keys, {_told(total.to_bytes(DIGEST_BYTES))}"
            for (database, kind), (count, total) in sorted(self._sums.items())
        }
        if self._functions:
            parts["function libraries"] = (
                f"{len(self._functions)} libraries, {_told(b''.join(sorted(self._functions)))}"
            )
        return parts


def _told(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=_TOLD_BYTES).hexdigest()


def pairs(digests: bytes) -> Mapping[str, bytes]:
    """The digest of each key by that of its name, in hex; see ContentSums.keys."""
    half = KEY_DIGEST_BYTES // 2
    starts = range(0, len(digests), KEY_DIGEST_BYTES)
    return {digests[at : at + half].hex(): digests[at + half : at + KEY_DIGEST_BYTES] for at in starts}


def head_of(name_bytes: int, moment: bytes) -> bytes:
    """What a key's hash begins with; its name and its content follow."""
    return moment + name_bytes.to_bytes(4)
