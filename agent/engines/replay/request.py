"""Which archive is to be replayed, and what it says of itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping

import msgspec

from common.fingerprints import Fingerprint
from common.frames import CHUNK_BYTES


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """
    Attributes:
        scheme: of the fingerprint that it is to be compared with.
        engine_version, details: of the archive's header.
    """

    file: str
    scheme: str
    engine_version: str = ""
    details: Mapping[str, str] = {}


class Replayed(msgspec.Struct, frozen=True):
    """What an archive holds.

    Attributes:
        engine: that it was replayed into, for example "PostgreSQL 17"; empty: it was read through without one.
        unproven: a sentence about what could not be looked at, or is not held as the app had it; empty: nothing.
    """

    fingerprint: Fingerprint
    engine: str = ""
    unproven: str = ""


async def chunks_of(file: str) -> AsyncGenerator[bytes, None]:
    """A file's bytes."""
    with open(file, "rb", buffering=0) as opened:  # noqa: ASYNC230  # opening is no waiting
        while chunk := await asyncio.to_thread(opened.read, CHUNK_BYTES):
            yield chunk
