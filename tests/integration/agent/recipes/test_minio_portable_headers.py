"""Headers of objects, whatever a server stores and serves: they go out and come in as they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from agent.engines.minio.server.client import Client
from common.errors import SourceUnreadableError
from tests.fixtures.minio_archives import rebuilt
from tests.fixtures.minio_data import put
from tests.fixtures.minio_servers import StartMinio, client_of
from tests.fixtures.verifying import verify
from tests.integration.agent.recipes.minio_apps import MinioApp
from tests.integration.agent.recipes.minio_shared import Target, shared_target, target

__all__ = ["shared_target", "target"]

HEADERS: dict[str, Mapping[str, str]] = {
    "a name in Latin-1": {"content-disposition": 'attachment; filename="gr\udcfcn.txt"'},
    "no UTF-8": {"cache-control": "x\udcff", "content-type": "text/pl\udce4in", "content-language": "\udcff"},
    "a tab": {"cache-control": "a\tb", "x-amz-meta-v": "c\td"},
    "control characters": {"content-disposition": "a\x01b\x7f", "content-language": "\x1f"},
    "UTF-8": {"content-disposition": "grün", "x-amz-meta-v": "日本語", "content-encoding": "gzip"},
    "metadata that no header holds": {
        "x-amz-meta-v": "a\nb\0\r",
        "x-amz-meta-w1w": "\udcff",
        "x-amz-meta-x": " grün ",
        "x-amz-meta-y": "gr\udcfcn.",
        "x-amz-meta-z": "=?UTF-8?q?gr=FCn.?=",
    },
    "words of mail": {
        f"x-amz-meta-{number}": value
        for number, value in enumerate(
            (
                "=?no-such-charset?Q?abc?=",
                "=?utf-8?b?a?=",
                "=?utf-8?b?/w==?=",
                "=?UTF-8?B?aGVsbG8=?=",
                "=?UTF-8?b?aGVsbG8=?=",
                "=?UTF-8?q?a?=",
                "=?UTF-8?q?=C3=BC?=",
                "=?UTF-8?q?=C3=BC<&>\"'?=",
                "=?UTF-8?b?w7w=?=",
                "x  =?UTF-8?Q?a?=  y",
                "=?UTF-8?Q?a?= =?UTF-8?Q?b?=",
                "a   b",
                "a+b%20c",
                "=??=",
                "",
            )
        )
    },
    "metadata in words of mail": {
        "x-amz-meta-v": "日本語" * 30,
        "x-amz-meta-w": "日本語.txt" * 30,
        "x-amz-meta-x": "ö b_c=?x",
        "x-amz-meta-y": "a\tü",
        "x-amz-meta-z": "ü.",
    },
    "more metadata than headers take": {f"x-amz-meta-{number}": "v" * 1000 for number in range(20)},
    "more headers than pages have": {f"x-amz-meta-{number}": "" for number in range(150)},
    "a long header": {"content-disposition": "d" * 9000, "cache-control": "\udcff" * 9000},
    "as much as there can be": {
        f"content-{name}": "\udcff" * ((32 << 10) - 50) for name in ("language", "type", "disposition")
    },
    "MinIO's own": {"x-minio-meta-v": "v", "x-minio-meta-w": "grün", "x-amz-storage-class": "REDUCED_REDUNDANCY"},
    "a path": {"content-disposition": "../a/./b", "x-amz-meta-v": "."},
}
LONG_TAGS = "".join(
    f"<Tag><Key>{number}{':' * 127}</Key><Value>{':' * 256}</Value></Tag>" for number in range(10)
).encode()


async def _store(client: Client, key: str, headers: Mapping[str, str]) -> None:
    """In the query, as presigned requests have it, where headers cannot hold it; there no value may be a path."""
    is_path = any("./" in value or value == "." for value in headers.values())
    query, named = ({}, headers) if is_path else (headers, {})
    await client.call("PUT", "odd", key, query=query, headers=named, body=b"x")


async def _served(client: Client, key: str) -> dict[str, str]:
    answer = await client.call("GET", "odd", key, headers={"x-amz-tagging-directive": "ACCESS"})
    found = {name.lower(): value for name, value in answer.headers.items()}
    left_out = ("date", "x-amz-request-id", "x-amz-id-2", "x-ratelimit-limit", "x-ratelimit-remaining")
    return {name: value for name, value in found.items() if name not in left_out}


async def test_headers_that_are_no_text_or_long_go_out_and_come_in_as_they_are(
    start_minio: StartMinio, target: Target, tmp_path: Path
) -> None:
    source = start_minio()
    async with client_of(source) as client:
        await client.call("PUT", "odd")
        for key, headers in HEADERS.items():
            await _store(client, key, headers)
        await put(client, "odd", "tagged", b"x")
        tags = b"<Tagging><TagSet>" + LONG_TAGS + b"</TagSet></Tagging>"
        await client.call("PUT", "odd", "tagged", query={"tagging": ""}, body=tags)
        keys = [*HEADERS, "tagged"]
        before = {key: await _served(client, key) for key in keys}
    assert before["a name in Latin-1"]["content-disposition"] == 'attachment; filename="gr\udcfcn.txt"'
    assert len(before["tagged"]["x-amz-tagging"]) > 8192

    app = MinioApp(source, tmp_path)
    exported, of_drive = await app.export("s3"), await app.export("tar")
    for name, file in (("archive.tar", exported.file), ("drive.tar", of_drive.file)):
        (tmp_path / name).write_bytes(file)
    record = await target.app.import_file(exported.file)

    async with client_of(target.server) as client:
        after = {key: await _served(client, key) for key in keys}
    on_drive = (await target.app.recipe.fingerprint(target.app.progress)).parts["bucket odd"]
    seen = MinioApp(target.server, tmp_path / "seen", {"directory": ""})
    through_s3 = (await seen.recipe.fingerprint(seen.progress)).parts["bucket odd"]
    await target.app.recipe.undo(record, target.app.progress)
    assert after == before
    assert exported.fingerprint is not None
    assert through_s3 == exported.fingerprint.parts["bucket odd"]
    of_source = (await app.recipe.fingerprint(target.app.progress)).parts["bucket odd"]
    assert on_drive.partition(", settings")[0] == of_source.partition(", settings")[0]
    assert of_source.startswith(f"{len(keys)} versions, {len(keys)} bytes")
    assert of_drive.fingerprint is not None
    assert of_drive.fingerprint.parts["bucket odd"] == of_source
    assert (of_drive.counts["versions"], of_drive.warnings) == (len(keys), [])
    for name in ("archive.tar", "drive.tar"):
        exit_code, said = verify(tmp_path / name)
        assert exit_code == 0, said


async def test_a_drive_comes_with_its_headers_also_where_it_was_packed_by_hand(
    start_minio: StartMinio, target: Target, tmp_path: Path
) -> None:
    source = start_minio()
    async with client_of(source) as client:
        await client.call("PUT", "odd")
        for key, headers in HEADERS.items():
            await _store(client, key, headers)
        before = {key: await _served(client, key) for key in HEADERS}
    exported = await MinioApp(source, tmp_path).export("tar", secrets="clear")

    record = await target.app.import_file(rebuilt(exported.file))

    async with client_of(target.server) as client:
        after = {key: await _served(client, key) for key in HEADERS}
    await target.app.recipe.undo(record, target.app.progress)
    assert after == before


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"cache-control": "a\0b"}, "odd/key cannot be in a portable archive: Invalid"),
        (
            dict.fromkeys(("cache-control", "x-amz-meta-a", "x-amz-meta-b", "x-amz-meta-c"), "c" * (32 << 10)),
            "odd/key cannot be in a portable archive: it has headers of more than",
        ),
    ],
    ids=["NUL", "too long"],
)
async def test_an_object_with_headers_that_cannot_be_kept_is_named(
    headers: Mapping[str, str], words: str, start_minio: StartMinio, tmp_path: Path
) -> None:
    source = start_minio()
    async with client_of(source) as client:
        await client.call("PUT", "odd")
        await _store(client, "key", headers)

    with pytest.raises(SourceUnreadableError, match=words) as failure:
        await MinioApp(source, tmp_path).export("s3")

    assert "default format" in failure.value.next_step


async def test_an_object_with_an_etag_that_no_import_takes_is_named(start_minio: StartMinio, tmp_path: Path) -> None:
    source = start_minio()
    async with client_of(source) as client:
        await client.call("PUT", "odd")
        await put(client, "odd", "key", b"x", x_minio_source_etag="of another server")

    with pytest.raises(SourceUnreadableError, match="odd/key cannot be in a portable archive: it has an ETag that is"):
        await MinioApp(source, tmp_path).export("s3")
