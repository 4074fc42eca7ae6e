"""Answers of another S3 server than MinIO, as moto 5.2 gives them.

Keys as they are, delete markers after all versions, times in whole seconds, a root element of its own.
"""

from __future__ import annotations

import html
import io
import json
import tarfile
from contextlib import aclosing
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from agent.engines.minio.portable import exporting as portable_export
from agent.engines.minio.server.client import connected
from agent.engines.minio.server.signing import Account
from common.headers import ArchiveHeader
from tests.fakes.imports import NotedProgress

KEY = "keys/a + b%20c & 日本語"
CONTENT = b"content"
_BUCKETS = "<ListAllMyBucketsResult><Buckets><Bucket><Name>things</Name></Bucket></Buckets></ListAllMyBucketsResult>"
_MOMENT = "<LastModified>2026-11-28T21:23:53.000Z</LastModified>"


def _version(key: str, version: str, *, is_latest: str) -> str:
    return (
        f"<Version><Size>{len(CONTENT)}</Size><Key>{html.escape(key)}</Key><VersionId>{version}</VersionId>"
        f"<IsLatest>{is_latest}</IsLatest>{_MOMENT}</Version>"
    )


_PAGE = f"""<?xml version="1.0" encoding="utf-8"?>
<ListVersionsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><IsTruncated>false</IsTruncated>
{_version("deleted", "1", is_latest="false")}{_version(KEY, "null", is_latest="true")}
<DeleteMarker><Key>deleted</Key><VersionId>2</VersionId><IsLatest>true</IsLatest>{_MOMENT}</DeleteMarker>
</ListVersionsResult>"""
_VERSIONING = """<?xml version="1.0" encoding="utf-8"?>
<GetBucketVersioningResponse xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Status>Enabled</Status>
</GetBucketVersioningResponse>"""


async def _answer(request: web.Request) -> web.Response:
    match request.path, sorted(request.query):
        case "/", []:
            return web.Response(text=_BUCKETS)
        case "/things", ["encoding-type", "versions"] | ["encoding-type", "max-keys", "prefix", "versions"]:
            return web.Response(text=_PAGE)
        case "/things", ["versioning"]:
            return web.Response(text=_VERSIONING)
        case path, _ if path in (f"/things/{KEY}", "/things/deleted"):
            return web.Response(body=CONTENT)
    return web.Response(status=404, text="<Error><Code>NoSuchTagSet</Code><Message>none</Message></Error>")


@pytest.fixture
async def members(tmp_path: Path) -> dict[str, bytes]:
    """Of a portable archive of that server."""
    app = web.Application()
    app.router.add_get("/{path:.*}", _answer)
    async with (
        TestServer(app) as server,
        connected(Account(str(server.make_url("")).rstrip("/"), "user", "password"), None) as client,
        aclosing(
            portable_export.chunks_of(
                client,
                ArchiveHeader(),
                portable_export.Found(),
                NotedProgress(),
                work_directory=tmp_path,
                is_minio=False,
            )
        ) as chunks,
    ):
        file = b"".join([chunk async for chunk in chunks])

    with tarfile.open(fileobj=io.BytesIO(file)) as archive:
        return {
            member.name: content.read() for member in archive if (content := archive.extractfile(member)) is not None
        }


def _lines(members: dict[str, bytes]) -> list[dict[str, object]]:
    return [json.loads(line) for line in members["metadata/things.jsonl"].splitlines()]


def test_keys_that_a_listing_does_not_encode_stay_what_they_are(members: dict[str, bytes]) -> None:
    assert members[f"buckets/things/{KEY}"] == CONTENT
    assert [line["key"] for line in _lines(members)] == ["deleted", "deleted", KEY]


def test_what_was_deleted_stays_deleted(members: dict[str, bytes]) -> None:
    marker, version, _ = _lines(members)

    assert marker["is_marker"]
    assert marker["is_latest"]
    assert version["version"] == "1"
    # In the order of the times, and so they come in again.
    assert str(marker["modified"]) > str(version["modified"])
    assert "buckets/things/deleted" not in members


def test_settings_go_under_the_name_that_s3_has_for_them(members: dict[str, bytes]) -> None:
    assert b"".join(members["settings/things/versioning.xml"].split()) == (
        b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
    )
