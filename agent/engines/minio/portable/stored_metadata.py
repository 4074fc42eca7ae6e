"""Which words of mail a MinIO has stored as metadata, and does not only say: see encoded_words.py.

A listing with metadata tells. No other S3 server has it, nor does a MinIO of before 2023. It takes some hundredths of a
second wherever it begins, so it is asked for many versions at once, in the order in which an export reads them.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Mapping
from xml.sax.saxutils import escape

from agent.engines.minio.portable.listing import Listed, listed_in, next_of
from agent.engines.minio.server.client import Client, RefusedError, parse_xml, text_of

_METADATA = re.compile(rb"<UserMetadata>(.*?)</UserMetadata>", re.DOTALL)
"""What XML cannot say is in there as `&#x1;` and the like, so that no parser takes it, and names may be anything."""
_WORDS = re.compile(rb"<([^<>]+)>(=\?UTF-8\?[^<]*)</")
_ESCAPES = {'"': "&#34;", "'": "&#39;"}
_LISTED = "50"
"""Versions at once, of which each may have 128 KiB of metadata, and five times as much where XML escapes it."""
_KEPT_PAGES = 2
"""Several versions are read at once."""
_Words = frozenset[tuple[bytes, bytes]] | None
"""Lower-case names and escaped values; None: the server does not tell."""
_Page = Mapping[tuple[str, str, str], _Words]
"""By key, version and time."""


class StoredWords:
    """Of one bucket."""

    def __init__(self, client: Client, bucket: str) -> None:
        self._client = client
        self._bucket = bucket
        self._pages: deque[_Page] = deque(maxlen=_KEPT_PAGES)
        self._lock = asyncio.Lock()

    async def stored(self, listed: Listed, said: Mapping[str, str]) -> set[str] | None:
        """Which of a version's metadata, as an answer says it, is stored just so: all of it where nothing tells.

        Args:
            said: printable ASCII, by names in lower case.
        Returns:
            Names; None where the version is not there any more as it was listed.
        """
        sought = (listed.key, listed.version, _to_milliseconds(listed.modified))
        async with self._lock:
            try:
                if not any(sought in page for page in self._pages):
                    await self._look_for(listed, sought)
            except RefusedError:
                return set(said)
            found = [page[sought] for page in self._pages if sought in page]
        if not found:
            return None
        words = found[0]
        return {
            name
            for name, value in said.items()
            if words is None or (name.encode(), escape(value, _ESCAPES).encode()) in words
        }

    async def _look_for(self, listed: Listed, sought: tuple[str, str, str]) -> None:
        key, version = listed.above
        markers = {"key-marker": key} | ({"version-id-marker": version} if key == listed.key else {})
        page, _ = await self._list(markers if key else {})
        # What was listed before it may be gone, and much may have come.
        query = {"prefix": listed.key}
        while sought not in page and query:
            page, query = await self._list(query)

    async def _list(self, query: Mapping[str, str]) -> tuple[_Page, dict[str, str]]:
        """A page, and the query for the next; empty: there is none, or only with other keys than the prefix."""
        query = {"versions": "", "metadata": "true", "encoding-type": "url", "max-keys": _LISTED, **query}
        body = (await self._client.call("GET", self._bucket, query=query)).body
        metadata = _METADATA.findall(body)
        page: dict[tuple[str, str, str], _Words] = {}
        last = ""
        root = parse_xml(_numbered(body))
        for found, element in listed_in(root):
            number = text_of(element, "UserMetadata")
            words = (
                frozenset((name.lower(), value) for name, value in _WORDS.findall(metadata[int(number)]))
                if number
                else None
            )
            last = found.key
            page[last, found.version, _to_milliseconds(found.modified)] = words
        self._pages.append(page)
        markers = next_of(root)
        is_more = bool(markers) and last == query.get("prefix")
        return page, query | markers if is_more else {}


def _numbered(body: bytes) -> bytes:
    """A page with the metadata's numbers in its place."""
    first, *others = _METADATA.split(body)[::2]
    return first + b"".join(b"<UserMetadata>%d</UserMetadata>%b" % pair for pair in enumerate(others))


def _to_milliseconds(moment: str) -> str:
    """Of `2024-01-01T00:00:00.123456Z`."""
    return moment[: len("2024-01-01T00:00:00.123")]
