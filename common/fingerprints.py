"""Whether two places hold the same content: the values behind `mathison fingerprint` and an archive's proof."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec


class Fingerprint(msgspec.Struct, frozen=True, kw_only=True):
    """Order-free, and equal for equal content whatever server, version or archive it is in.

    Attributes:
        scheme: how it was made, with the recipe's name and a number that grows when that changes, for example
            "postgresql/1". Only fingerprints of one scheme can be compared.
        parts: what was looked at and what was found, for example {"table shop.orders": "40000 rows, 8c1f…"}. Names and
            numbers only, never content.
    """

    scheme: str
    parts: Mapping[str, str] = {}

    @property
    def sha256(self) -> str:
        """Of scheme and parts, in lower-case hex."""
        return hashlib.sha256(msgspec.json.encode([self.scheme, sorted(self.parts.items())])).hexdigest()

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
