"""The digests of RFC 9530 that a request announces: `Repr-Digest: sha-256=:<base64>:`."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping

from common.errors import InvalidRequestError

_SHA256_MEMBER = re.compile(r"(?:^|,)\s*sha-256=:([A-Za-z0-9+/=]*):\s*(?=$|[,;])")


def expected_digests(headers: Mapping[str, str], *names: str) -> list[str]:
    """SHA-256 in lower-case hex from each line of the headers that are there.

    Raises:
        InvalidRequestError: a header has no well-formed sha-256. A sender who announces another digest expects it to
            be checked, so ignoring it, as the RFC allows, would be a false assurance.
    """
    found = []
    for name in names:
        lines = [value for key, value in headers.items() if key.lower() == name.lower()]  # of a multi-mapping all
        if not lines:
            continue
        members = _SHA256_MEMBER.findall(", ".join(lines))  # RFC 9110: as if they were one
        try:
            digests = [base64.b64decode(member, validate=True) for member in members]
        except binascii.Error:
            digests = []
        if not digests or any(len(digest) != 32 for digest in digests):
            raise InvalidRequestError(f"{name} has no well-formed sha-256.", next_step="Send sha-256=:<base64>:")
        found += [digest.hex() for digest in digests]
    return found
