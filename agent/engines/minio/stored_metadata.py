"""What a MinIO has stored with an object, from a listing with metadata.

Answers to a GET say some of it in other words: see encoded_words.py. No other S3 server lists it, nor does a MinIO of
before 2023.
"""

from __future__ import annotations

import re
from xml.sax.saxutils import escape

from agent.engines.minio.client import Client, RefusedError, parse_xml, text_of
from agent.engines.minio.listing import Listed, listed_in, next_of

_METADATA = re.compile(rb"<UserMetadata>(.*?)</UserMetadata>", re.DOTALL)
_LISTED = "10"
"""Versions at once, of which each may have 128 KiB of it."""
_ESCAPES = {'"': "&#34;", "'": "&#39;"}


async def metadata_of(client: Client, bucket: str, listed: Listed) -> bytes | None:
    """Elements with the values of headers. Names may be anything, and what XML cannot say is there as `&#x1;` and the
    like, so that no parser takes it; bytes that are no UTF-8 are replaced.

    Returns:
        Empty where the server does not tell it; None where the version is not there any more as it was listed.
    """
    for above in dict.fromkeys((listed.above, "")):
        query = {"versions": "", "metadata": "true", "encoding-type": "url", "prefix": listed.key, "max-keys": _LISTED}
        query |= {"key-marker": listed.key, "version-id-marker": above} if above else {}
        is_more = True
        while is_more:
            try:
                body = (await client.call("GET", bucket, query=query)).body
            except RefusedError:
                return b""
            metadata = _METADATA.findall(body)
            if not metadata:
                return b""
            last = ""
            page = parse_xml(_numbered(body))
            for found, element in listed_in(page):
                last = found.key
                is_same = (last, found.version) == (listed.key, listed.version)
                if is_same and listed.modified.startswith(found.modified.removesuffix("Z")):
                    return bytes(metadata[int(text_of(element, "UserMetadata"))])
            markers = next_of(page)
            is_more = bool(markers) and last == listed.key
            query |= markers
    return None


def holds(metadata: bytes, name: str, value: str) -> bool:
    """Whether a value, in printable ASCII, is stored just so."""
    wanted = b"<%b>%b</" % (re.escape(name.encode()), re.escape(escape(value, _ESCAPES).encode()))
    return re.search(wanted, metadata, re.IGNORECASE) is not None


def _numbered(body: bytes) -> bytes:
    """A page with the metadata's numbers in its place."""
    first, *others = _METADATA.split(body)[::2]
    return first + b"".join(b"<UserMetadata>%d</UserMetadata>%b" % pair for pair in enumerate(others))
