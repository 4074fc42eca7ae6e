"""A server's buckets and the versions in them, page by page, in the order of their keys."""

from __future__ import annotations

import datetime as dt
import urllib.parse
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass, field

from agent.engines.minio.portable.form import NO_VERSION
from agent.engines.minio.server.client import Client, RefusedError, parse_xml, text_of
from common.errors import ToolFailedError

_NOT_IMPLEMENTED = 501
_MARKERS = {
    "key-marker": "NextKeyMarker",
    "version-id-marker": "NextVersionIdMarker",
    "continuation-token": "NextContinuationToken",
}
"""Where the next page begins, by what it is called in the query and in the page before."""


@dataclass
class Listed:
    """A version, as a listing has it; `modified` as in `portable.Line`.

    Attributes:
        above: key and version of what was listed before it; empty: it is the first.
    """

    key: str
    version: str
    is_marker: bool
    is_latest: bool
    modified: str
    etag: str
    size: int
    above: tuple[str, str] = field(default=("", ""), compare=False)


async def buckets_of(client: Client) -> list[str]:
    """Their names."""
    return list(await dates_of_buckets(client))


async def dates_of_buckets(client: Client) -> dict[str, str]:
    """When each was made, by its name, as the server writes it: with milliseconds, where it is MinIO."""
    found = parse_xml((await client.call("GET", path="/")).body)
    return {
        text_of(element, "Name"): text_of(element, "CreationDate")
        for element in found.iter()
        if element.tag.rpartition("}")[2] == "Bucket"
    }


async def keys_of(
    client: Client, bucket: str, *, prefix: str = "", page: int = 0
) -> AsyncGenerator[list[Listed], None]:
    """The versions of one key after the other, the newest first.

    A listing hides objects below other objects (`docs/readme` where there is `docs`).

    Args:
        prefix: of the keys that are wanted; empty: all are.
        page: versions to be listed at once, where few are wanted; 0: as many as the server gives.
    """
    held: list[Listed] = []
    async for version in _versions(client, bucket, prefix, page):
        if held and held[0].key != version.key:
            yield _ordered(held)
            held = []
        held.append(version)
    if held:
        yield _ordered(held)


async def _versions(client: Client, bucket: str, prefix: str, page_size: int) -> AsyncGenerator[Listed, None]:
    # Without the encoding, keys with control characters make a page that is no XML.
    query = {"versions": "", "encoding-type": "url"} | ({"prefix": prefix} if prefix else {})
    query |= {"max-keys": str(page_size)} if page_size else {}
    above = ("", "")
    while query:
        try:
            page = parse_xml((await client.call("GET", bucket, query=query)).body)
        except RefusedError as refusal:
            if refusal.status != _NOT_IMPLEMENTED or "versions" not in query:
                raise
            # The server keeps no versions.
            query = {"list-type": "2", **{name: value for name, value in query.items() if name != "versions"}}
            continue
        found = [version for version, _ in listed_in(page)]
        # So MinIO lists them; others list delete markers after all versions, and times in whole seconds.
        found.sort(key=lambda version: version.modified, reverse=True)
        found.sort(key=lambda version: (version.key.encode(), not version.is_latest))
        for version in found:
            version.above = above
            above = (version.key, version.version)
            yield version
        markers = next_of(page)
        query = {name: value for name, value in query.items() if name not in _MARKERS} | markers if markers else {}


def listed_in(page: ET.Element) -> Iterator[tuple[Listed, ET.Element]]:
    """What a page lists, in its order, with what it says of each."""
    decoded = _decoder(page)
    for element in page:
        kind = element.tag.rpartition("}")[2]
        if kind in ("Version", "DeleteMarker", "Contents"):
            found = Listed(
                key=decoded(text_of(element, "Key")),
                version=text_of(element, "VersionId") or NO_VERSION,
                is_marker=kind == "DeleteMarker",
                is_latest=kind == "Contents" or text_of(element, "IsLatest") == "true",
                modified=_in_milliseconds(text_of(element, "LastModified")),
                etag=text_of(element, "ETag").strip('"'),
                size=int(text_of(element, "Size") or 0),
            )
            yield found, element


def next_of(page: ET.Element) -> dict[str, str]:
    """What a query for the next page says of its beginning; empty: there is none."""
    if text_of(page, "IsTruncated") != "true":
        return {}
    found = {name: text_of(page, element_name) for name, element_name in _MARKERS.items()}
    decoded = _decoder(page)
    return {name: decoded(marker) if name == "key-marker" else marker for name, marker in found.items() if marker}


def _decoder(page: ET.Element) -> Callable[[str], str]:
    """Of keys. Other servers than MinIO may leave them as they are; then a page does not say that they are encoded."""
    return urllib.parse.unquote_plus if text_of(page, "EncodingType") == "url" else str


def _in_milliseconds(moment: str) -> str:
    """As MinIO writes it; other servers write more digits, or none."""
    try:
        parsed = dt.datetime.fromisoformat(moment).astimezone(dt.UTC)
    except ValueError as failure:
        raise ToolFailedError(f"The server lists an object with a time that is none: {moment[:40]!r}.") from failure
    return f"{parsed:%Y-%m-%dT%H:%M:%S}.{parsed.microsecond // 1000:03d}Z"


def _ordered(versions: list[Listed]) -> list[Listed]:
    """Listings say milliseconds; microseconds are added so that versions of one millisecond keep their order."""
    seen: Counter[str] = Counter()
    for version in reversed(versions):
        seen[version.modified] += 1
        version.modified = f"{version.modified.removesuffix('Z')}{min(seen[version.modified] - 1, 999):03d}Z"
    return versions
