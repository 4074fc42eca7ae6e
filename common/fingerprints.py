"""Whether two places hold the same content: the values behind `mathison fingerprint` and an archive's proof."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    # What a jailed child reads is JSON, and a third of its start would go into this.
    from mathison.data.v1 import transfer_pb2 as wire

MOST_PARTS = 200
"""More of them are told in groups: a fingerprint travels in one message and is kept with the last transfers."""
_GROUPS = 64


class Fingerprint(msgspec.Struct, frozen=True, kw_only=True):
    """Order-free, and equal for equal content whatever server, version or archive it is in.

    Attributes:
        scheme: how it was made, with the recipe's name and a number that grows when that changes, for example
            "postgresql/2". Only fingerprints of one scheme can be compared.
        parts: what was looked at and what was found, for example {"table shop.orders": "40000 rows, 8c1f…"}. Names and
            numbers only, never content.
    """

    scheme: str
    parts: Mapping[str, str] = {}

    @classmethod
    def of(cls, scheme: str, parts: Mapping[str, str]) -> Fingerprint:
        """As the constructor, for any number of parts: too many are put together in groups, the same on every side."""
        if len(parts) <= MOST_PARTS:
            return cls(scheme=scheme, parts=parts)
        groups: dict[str, list[tuple[str, str]]] = {}
        for name, value in parts.items():
            number = hashlib.sha256(name.encode(errors="surrogateescape")).digest()[0] % _GROUPS + 1
            groups.setdefault(f"group {number} of {_GROUPS}", []).append((name, value))
        return cls(
            scheme=scheme,
            parts={name: f"{len(found)} parts, {_sha256(sorted(found))[:32]}" for name, found in groups.items()},
        )

    @property
    def sha256(self) -> str:
        """Of scheme and parts, in lower-case hex."""
        return _sha256([self.scheme, sorted(self.parts.items())])

    def differences(self, other: Fingerprint) -> list[str]:
        """One sentence for each part that differs, by name; empty when both are the same."""
        if self.scheme != other.scheme:
            return [
                f"The fingerprints cannot be compared: they were made differently, {self.scheme} and {other.scheme}."
            ]
        return [
            f"{name}: {self.parts.get(name, 'nothing')} here, {other.parts.get(name, 'nothing')} there"
            for name in sorted({*self.parts, *other.parts})
            if self.parts.get(name) != other.parts.get(name)
        ]

    def to_json(self) -> bytes:
        """One line of JSON, for an archive."""
        return msgspec.json.encode(self, order="sorted")

    @classmethod
    def from_json(cls, text: bytes) -> Fingerprint:
        """The reverse of to_json; ValueError (msgspec.ValidationError) for anything else."""
        return msgspec.json.decode(text, type=cls)

    def to_proto(self) -> wire.Fingerprint:
        from mathison.data.v1 import transfer_pb2 as wire

        return wire.Fingerprint(scheme=self.scheme, sha256=self.sha256, parts=self.parts)

    @classmethod
    def from_proto(cls, message: wire.Fingerprint) -> Fingerprint:
        return cls(scheme=message.scheme, parts=dict(message.parts))


def _sha256(content: object) -> str:
    return hashlib.sha256(msgspec.json.encode(content)).hexdigest()
