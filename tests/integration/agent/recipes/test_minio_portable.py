"""The portable format: out of any server, into buckets that are not there yet, and taken back by deleting them."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from agent.engines.minio.portable import importing as portable_import
from agent.engines.minio.portable import way as portable_way
from agent.engines.minio.server.client import Client
from agent.engines.tree import StagingArea
from agent.recipes.base import ItemChanges, Recovered
from common.errors import (
    AppUnavailableError,
    ArchiveDamagedError,
    ArchiveIncompatibleError,
    ArchiveRefusedError,
    ServiceError,
    SourceUnreadableError,
    ToolFailedError,
)
from tests.fakes.imports import MemoryRecord
from tests.fixtures.minio_archives import IN_CHECKSUM_ONLY, Change, resealed
from tests.fixtures.minio_data import EXPIRY, HIDDEN, md5_of, put, view
from tests.fixtures.minio_servers import KMS_KEY, StartMinio, client_of
from tests.integration.agent.recipes.minio_apps import MinioApp
from tests.integration.agent.recipes.minio_shared import Source, Target, shared_target, source, target
from tools.servers import RcloneServer, rclone

__all__ = ["shared_target", "source", "target"]

LOCKED = "locked"


def _without_date(found: dict[str, Any]) -> dict[str, Any]:
    """All but when buckets were made; and locks, which such an import leaves out."""
    kept = {name: bucket for name, bucket in found.items() if name not in ("hidden", LOCKED)}
    return {name: {key: value for key, value in bucket.items() if key != "created"} for name, bucket in kept.items()}


async def test_all_versions_arrive_at_a_server_with_several_drives_and_an_undo_takes_them_away(
    source: Source, start_minio: StartMinio, tmp_path: Path
) -> None:
    several = start_minio(user="otheradmin", password="otherpass456", drives=4)
    async with client_of(several) as client:
        await client.call("PUT", "own")
        await put(client, "own", "old", b"old data")
    before = await view(several)
    app = MinioApp(several, tmp_path)
    exported = source.objects

    record, preview = await app.stage(exported.file, None, locks="drop")
    await app.recipe.restore(record, app.progress)

    found = await view(several)
    assert found.pop("own") == before["own"]
    assert _without_date(found) == _without_date(source.seen)
    assert "Bucket plain comes." in preview.changes
    assert preview.counts_after == exported.counts
    assert preview.items["buckets"] == ItemChanges(added=5, same=1)
    assert preview.items["versions"] == ItemChanges(added=exported.counts["versions"])
    assert preview.room_bytes > 2 * exported.counts["bytes"]
    # Read through S3, since no single drive has it: what came, and what was there.
    here = (await app.recipe.fingerprint(app.progress)).parts
    assert exported.fingerprint is not None
    differing = {name for name, part in here.items() if exported.fingerprint.parts.get(name) != part}
    assert differing == {"bucket own", "settings of bucket own", "bucket locked", "settings of bucket locked"}
    await app.recipe.undo(record, app.progress)
    assert await view(several) == before
    assert app.leftovers() == []


async def test_a_person_finds_objects_by_their_names(source: Source) -> None:
    exported = source.objects

    with tarfile.open(fileobj=io.BytesIO(exported.file)) as archive:
        names = archive.getnames()
        content = archive.extractfile("buckets/plain/a/b")
        lines = archive.extractfile("metadata/versions.jsonl")
        assert content is not None
        assert lines is not None
        assert content.read() == b"body of a/b"
        found = [json.loads(line) for line in lines]
    assert "buckets/plain/日本語/キー" in names
    assert "buckets/empty" in names
    assert "settings/plain/policy.json" in names
    assert {line["key"] for line in found} == {"from before", "many", "deleted"}
    assert sum(line.get("is_marker", False) for line in found) == 1
    assert exported.counts["markers"] == 2
    assert any("2 objects lie below other objects" in warning for warning in exported.warnings)
    assert not any(name.endswith("/".join(HIDDEN)) for name in names)


async def test_encrypted_objects_go_out_in_clear_and_are_encrypted_again(
    start_minio: StartMinio, tmp_path: Path
) -> None:
    source = start_minio(environment={"MINIO_KMS_SECRET_KEY": KMS_KEY})
    target = start_minio(environment={"MINIO_KMS_SECRET_KEY": KMS_KEY.replace("a2tr", "bW1t")})
    async with client_of(source) as client:
        await client.call("PUT", "sse")
        await put(client, "sse", "key", b"secret" * 100_000, x_amz_server_side_encryption="AES256")

    exported = await MinioApp(source, tmp_path / "a").export("s3")
    await MinioApp(target, tmp_path / "b").import_file(exported.file)

    async with client_of(target) as client:
        answer = await client.call("GET", "sse", "key")
    assert answer.body == b"secret" * 100_000
    assert {name.lower(): value for name, value in answer.headers.items()}["x-amz-server-side-encryption"] == "AES256"


async def test_encrypted_objects_are_refused_where_there_is_no_kms(
    start_minio: StartMinio, target: Target, tmp_path: Path
) -> None:
    encrypted = start_minio(environment={"MINIO_KMS_SECRET_KEY": KMS_KEY})
    async with client_of(encrypted) as client:
        await client.call("PUT", "sse")
        await put(client, "sse", "key", b"secret", x_amz_server_side_encryption="AES256")
    record = MemoryRecord()

    with pytest.raises(ArchiveIncompatibleError, match="has no KMS"):
        await target.app.stage((await MinioApp(encrypted, tmp_path).export("s3")).file, record)

    await target.app.recipe.discard(record)


async def test_an_agent_that_does_not_see_the_drive_exports_in_the_portable_format_only(
    source: Source, tmp_path: Path
) -> None:
    app = MinioApp(source.server, tmp_path, {"directory": ""})

    exported = await app.export("s3")
    with pytest.raises(AppUnavailableError, match="does not see") as refusal:
        await app.export("tar")

    assert exported.fingerprint == source.objects.fingerprint == await app.recipe.fingerprint(app.progress)
    assert "?format=s3" in refusal.value.next_step
    assert any("cannot be seen" in warning for warning in exported.warnings)
    assert any("portable" in warning for warning in (await app.recipe.describe()).warnings)


async def test_a_bucket_that_is_there_already_is_not_touched(source: Source, target: Target) -> None:
    record = MemoryRecord()

    with pytest.raises(ArchiveIncompatibleError, match="bucket plain is there already"):
        await target.app.stage(source.objects.file, record, locks="drop")

    await target.app.recipe.discard(record)


async def test_object_lock_is_refused_unless_locks_are_left_out(source: Source, target: Target) -> None:
    record = MemoryRecord()

    with pytest.raises(ArchiveIncompatibleError, match="object lock") as refusal:
        await target.app.stage(source.objects.file, record)

    assert "locks=drop" in refusal.value.next_step
    await target.app.recipe.discard(record)


async def test_a_bucket_of_its_own_is_not_refused_for_what_others_have(
    source: Source, start_minio: StartMinio, target: Target, tmp_path: Path
) -> None:
    record, preview = await target.app.stage(source.objects.file, None, bucket="versions")
    await target.app.recipe.discard(record)
    encrypted = start_minio(environment={"MINIO_KMS_SECRET_KEY": KMS_KEY})
    async with client_of(encrypted) as client:
        await client.call("PUT", "sse")
        await put(client, "sse", "key", b"secret", x_amz_server_side_encryption="AES256")
        await client.call("PUT", "clear")
    file = (await MinioApp(encrypted, tmp_path).export("s3")).file

    other_record, other = await target.app.stage(file, None, bucket="clear")
    await target.app.recipe.discard(other_record)

    assert preview.changes[0] == "Bucket versions comes."
    assert other.changes[0] == "Bucket clear comes."


def _without_a_file(name: str, content: bytes) -> bytes | None:
    return None if name == "buckets/own/old" else content


def _with_a_longer_file(name: str, content: bytes) -> bytes:
    return content + b"x" if name == "buckets/own/old" else content


def _without_lines(name: str, content: bytes) -> bytes | None:
    return None if name == "metadata/own.jsonl" else content


def _with_a_broken_line(name: str, content: bytes) -> bytes:
    return content[:20] if name == "metadata/own.jsonl" else content


def _with_a_file_elsewhere(name: str, content: bytes) -> bytes:
    return content.replace(b"buckets/own/old", b"settings/own/x") if name == "metadata/own.jsonl" else content


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_without_a_file, "is missing"),
        (_with_a_longer_file, "size"),
        (_without_lines, "own.jsonl is missing"),
        (_with_a_broken_line, "line 1"),
        (_with_a_file_elsewhere, "no place of its content"),
    ],
)
async def test_an_archive_that_does_not_hold_together_is_refused(change: Change, words: str, target: Target) -> None:
    app, record = target.app, MemoryRecord()
    file = resealed((await app.export("s3")).file, change)

    with pytest.raises(ArchiveDamagedError, match=words):
        await app.stage(file, record)

    await app.recipe.discard(record)


def _with(**fields: object) -> Change:
    """Other values in the line of the one object."""

    def change(name: str, content: bytes) -> bytes:
        return json.dumps(json.loads(content) | fields).encode() + b"\n" if name == "metadata/own.jsonl" else content

    return change


def _with_a_line_twice(name: str, content: bytes) -> bytes:
    return content * 2 if name == "metadata/own.jsonl" else content


def _with_two_lines_of_a_file(name: str, content: bytes) -> bytes:
    return content + content.replace(b'"old"', b'"new"') if name == "metadata/own.jsonl" else content


def _without_any_line(name: str, content: bytes) -> bytes:
    return b"" if name == "metadata/own.jsonl" else content


DAMAGED_LINES: dict[str, tuple[Change, str]] = {
    "an ETag that ends a header": (_with(etag="x\r\nx-amz-acl: public-read"), "an ETag that is none"),
    "a header with a line's end": (_with(headers={"x-amz-meta-a": "b\nc"}), "a header that is none"),
    "a header with a name that is none": (_with(headers={"x-amz-meta-a b": "c"}), "a header that is none"),
    "bytes with a line's end": (_with(raw_headers={"cache-control": "YQpi"}), "a header that is none"),
    "a header as text and as bytes": (
        _with(headers={"x-amz-meta-a": "a"}, raw_headers={"x-amz-meta-a": "/w=="}),
        "a header twice",
    ),
    "no key": (_with(key=""), "no key"),
    "a key with NUL": (_with(key="a\0b"), "NUL"),
    "a key that is too long": (_with(key="/".join(["k" * 99] * 20)), "more than 1024 bytes"),
    "half a character": (_with(key="\ud800"), "line 1"),
    "a time that is none": (_with(modified="yesterday"), "a time that is none"),
    "a time that never was": (_with(modified="2024-02-30T00:00:00.000000Z"), "a time that is none"),
    "no time": (_with(modified=""), "a time that is none"),
    "no version": (_with(version=""), "no version"),
    "a line twice": (_with_a_line_twice, "twice"),
    "two lines of a file": (_with_two_lines_of_a_file, "two versions"),
    "a file that no line names": (_without_any_line, "does not name 'buckets/own/old'"),
    "a marker with content": (_with(is_marker=True), "content of a delete marker"),
    "versions without versioning": (
        _with(version="0dc8ea12-7d4a-4a5a-b7f6-2fb2a4d5c2d1"),
        "say nothing of versioning",
    ),
}


@pytest.mark.parametrize("name", DAMAGED_LINES)
async def test_a_line_that_makes_no_sense_is_damage_before_anything_is_changed(name: str, target: Target) -> None:
    change, words = DAMAGED_LINES[name]
    app, record = target.app, MemoryRecord()
    file = resealed((await app.export("s3")).file, change, keeps_fingerprint=False)

    with pytest.raises(ArchiveDamagedError, match=words):
        await app.stage(file, record)

    await app.recipe.discard(record)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_with(key="a/../b"), r"`\.\.` in its path"),
        (_with(key="/abs//x"), "an empty name"),
        (_with(modified="1970-01-01T00:00:00Z"), "a time that is not after 1970"),
        (_with(modified="1970-01-01T23:58:59.9+23:59"), "a time that is not after 1970"),
        (_with(key="k" * 300), "more than 255 bytes"),
        (_with(headers={"x-amz-meta-a": "b" * (33 << 10)}), "headers of more than 131072 bytes, or long ones"),
        (_with(raw_headers={"expires": "Ly4u"}), "a header expires of more than 32768 bytes, or one that is no text"),
    ],
)
async def test_what_s3_allows_and_minio_does_not_store_is_refused_before_anything_is_changed(
    change: Change, words: str, target: Target
) -> None:
    app, record = target.app, MemoryRecord()
    file = resealed((await app.export("s3")).file, change, keeps_fingerprint=False)

    with pytest.raises(ArchiveIncompatibleError, match=words):
        await app.stage(file, record)

    await app.recipe.discard(record)


async def test_an_archive_without_the_settings_of_its_fingerprint_is_refused(source: Source, target: Target) -> None:
    record = MemoryRecord()

    def without_policy(name: str, content: bytes) -> bytes | None:
        return None if name == "settings/plain/policy.json" else content

    with pytest.raises(ArchiveDamagedError, match="exported: settings of bucket plain"):
        await target.app.stage(resealed(source.objects.file, without_policy), record, locks="drop")

    await target.app.recipe.discard(record)


_TO_A_WEBHOOK = (
    b"<NotificationConfiguration><QueueConfiguration><Id>1</Id><Queue>arn:minio:sqs::x:webhook</Queue>"
    b"<Event>s3:ObjectCreated:*</Event></QueueConfiguration></NotificationConfiguration>"
)


_POLICY = (
    b'{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":["*"]},"Action":["s3:GetObject"],'
    b'"Resource":["arn:aws:s3:::versions/a/*","arn:aws:s3:::vers*/b","arn:aws:s3:::*"]}]}'
)


def _with_a_notification(name: str, content: bytes) -> bytes:
    """To a target that no server here has."""
    return _TO_A_WEBHOOK if name == "settings/versions/notification.xml" else content


async def test_settings_that_the_server_does_not_take_are_refused_before_anything_is_imported(
    source: Source, target: Target
) -> None:
    file = resealed(source.objects.file, _with_a_notification, keeps_fingerprint=False)
    record = MemoryRecord()

    with pytest.raises(
        ArchiveIncompatibleError, match=r"'versions/notification.xml' \(ARN 'arn:minio:sqs::x:webhook' not found\)"
    ) as refusal:
        await target.app.stage(file, record, bucket="versions")

    assert "settings=drop" in refusal.value.next_step
    await target.app.recipe.discard(record)
    # What other buckets have does not matter.
    other, preview = await target.app.stage(file, None, bucket="empty")
    await target.app.recipe.discard(other)
    assert preview.warnings == ()


async def test_an_import_goes_without_the_settings_that_the_server_does_not_take_where_that_is_wanted(
    source: Source, target: Target
) -> None:
    app = target.app
    added = {
        "settings/versions/policy.json": _POLICY,
        "settings/versions/lifecycle.xml": EXPIRY.replace(
            b"</Expiration>",
            b"</Expiration><Transition><Days>1</Days><StorageClass>NOTIER</StorageClass></Transition>",
        ),
        "settings/versions/cors.xml": b"<CORSConfiguration/>",
        "settings/versions/replication.xml": b"<ReplicationConfiguration/>",
        "settings/versions/odd name": b"x",
        "settings/versions/below/policy.json": b"{}",
    }
    file = resealed(source.objects.file, _with_a_notification, keeps_fingerprint=False, added=added)

    record, preview = await app.stage(file, None, bucket="versions", settings="drop")
    await app.recipe.restore(record, app.progress)

    refused, unknown = preview.warnings
    assert refused == (
        "Left out, since this server does not take them: 'versions/lifecycle.xml' (invalid storage class); "
        "'versions/notification.xml' (ARN 'arn:minio:sqs::x:webhook' not found)."
    )
    assert unknown.endswith(
        "MinIO: 'versions/below', 'versions/odd name', 'versions/replication.xml', 'versions/cors.xml'."
    )
    async with client_of(target.server) as client:
        policy = json.loads((await client.call("GET", "versions", query={"policy": ""})).body)
        notification = await client.call("GET", "versions", query={"notification": ""})
    assert sorted(policy["Statement"][0]["Resource"]) == [
        "arn:aws:s3:::*",
        "arn:aws:s3:::vers*/b",
        "arn:aws:s3:::versions/a/*",
    ]
    assert b"webhook" not in notification.body
    await app.recipe.undo(record, app.progress)


async def test_a_policy_of_another_bucket_is_refused_before_anything_is_imported(
    source: Source, target: Target
) -> None:
    added = {"settings/versions/policy.json": _POLICY.replace(b"vers*/b", b"other/b")}
    file = resealed(source.objects.file, lambda name, content: content, keeps_fingerprint=False, added=added)
    record = MemoryRecord()

    with pytest.raises(ArchiveIncompatibleError, match=r"'versions/policy.json' \(bucket name does not match\)"):
        await target.app.stage(file, record, bucket="versions")

    await target.app.recipe.discard(record)


async def test_settings_that_are_refused_only_at_last_leave_nothing(source: Source, target: Target) -> None:
    app = target.app
    record, _ = await app.stage(source.objects.file, None, bucket="versions")
    # As if a target of the server had gone since.
    area = StagingArea(Path(str(record.facts["directory"])), record.key)
    (area.new / "settings/versions/notification.xml").write_bytes(_TO_A_WEBHOOK)

    with pytest.raises(ArchiveIncompatibleError, match=r"'versions/notification' \(") as refusal:
        await app.recipe.restore(record, app.progress)

    assert "settings=drop" in refusal.value.next_step
    await app.recipe.discard(record)


async def test_the_bucket_of_a_trial_that_a_killed_agent_left_is_deleted_by_the_next(
    source: Source, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, record = target.app, MemoryRecord()

    class KilledError(BaseException):
        """The process is gone."""

    async def killed(*arguments: object, **options: object) -> None:
        raise KilledError

    with monkeypatch.context() as patches:
        patches.setattr(portable_way, "delete_if_empty", killed)
        with pytest.raises(KilledError):
            await app.stage(source.objects.file, record, bucket="versions")
    assert len(app.leftovers()) == 2

    await app.recipe.discard(record)


async def test_settings_too_large_to_hand_to_a_server_are_refused(source: Source, target: Target) -> None:
    record = MemoryRecord()

    def with_much(name: str, content: bytes) -> bytes:
        return bytes(33 << 20) if name == "settings/plain/policy.json" else content

    with pytest.raises(ArchiveRefusedError, match="more than 32 MiB"):
        await target.app.stage(resealed(source.objects.file, with_much, keeps_fingerprint=False), record, locks="drop")

    await target.app.recipe.discard(record)


@pytest.mark.parametrize("name", ["1.2.3.4", "a.-b", "UPPER"])
async def test_a_bucket_with_a_name_that_no_minio_takes_is_refused_before_anything_is_changed(
    name: str, target: Target
) -> None:
    record = MemoryRecord()
    added = {f"metadata/{name}.jsonl": b"", f"buckets/{name}/key": b"content"}
    file = resealed((await target.app.export("s3")).file, lambda _, content: content, added=added)

    with pytest.raises(ArchiveRefusedError, match=f"'{name}', which is no name of a bucket"):
        await target.app.stage(file, record)

    await target.app.recipe.discard(record)


async def test_an_archive_without_an_object_of_its_fingerprint_is_refused(target: Target) -> None:
    app, record = target.app, MemoryRecord()

    def without_own(name: str, content: bytes) -> bytes | None:
        return b"" if name == "metadata/own.jsonl" else None if name == "buckets/own/old" else content

    with pytest.raises(ArchiveDamagedError, match="exported: bucket own"):
        await app.stage(resealed((await app.export("s3")).file, without_own), record)

    await app.recipe.discard(record)


def _with_other_content(name: str, content: bytes) -> bytes:
    return content[::-1] if name == "buckets/versions/from before" else content


async def _with_things(start_minio: StartMinio, tmp_path: Path, **things: bytes) -> MinioApp:
    """A server with objects in one bucket."""
    app = MinioApp(start_minio(), tmp_path)
    async with client_of(app.server) as client:
        await client.call("PUT", "things")
        for key, content in things.items():
            await put(client, "things", key, content)
    return app


async def test_an_export_names_the_object_whose_content_the_server_breaks_off(
    start_minio: StartMinio, tmp_path: Path
) -> None:
    app = await _with_things(start_minio, tmp_path, rotten=bytes(3 << 20))
    [part] = app.server.drive.glob("things/rotten/*/part.1")
    content = bytearray(part.read_bytes())
    content[-1] ^= 1
    part.write_bytes(content)

    with pytest.raises(SourceUnreadableError, match=r"broke off things/rotten after [0-9]+ of 3145728 bytes"):
        await app.export("s3")


async def test_an_export_warns_of_objects_that_a_listing_leaves_out_since_they_are_damaged(
    start_minio: StartMinio, tmp_path: Path
) -> None:
    app = await _with_things(start_minio, tmp_path, rotten=b"content", whole=b"content")
    meta = app.server.drive / "things/rotten/xl.meta"
    content = bytearray(meta.read_bytes())
    content[IN_CHECKSUM_ONLY] ^= 1
    meta.write_bytes(content)

    exported = await app.export("s3")

    assert exported.counts["objects"] == 1
    [warning] = exported.warnings
    assert warning.startswith("1 version on the drive is damaged: 'things/rotten'.")


async def test_a_preview_names_buckets_whose_rules_delete_by_age(start_minio: StartMinio, tmp_path: Path) -> None:
    source, target = MinioApp(start_minio(), tmp_path / "a"), MinioApp(start_minio(), tmp_path / "b")
    async with client_of(source.server) as client:
        await client.call("PUT", "things")
        headers = {"content-md5": md5_of(EXPIRY)}
        await client.call("PUT", "things", query={"lifecycle": ""}, headers=headers, body=EXPIRY)

    record, preview = await target.stage((await source.export("s3")).file)
    await target.recipe.discard(record)

    [warning] = preview.warnings
    assert "things delete objects by their age" in warning


async def test_what_the_server_refuses_half_way_leaves_nothing(source: Source, target: Target) -> None:
    app = target.app
    file = resealed(source.objects.file, _with_other_content)
    record, _ = await app.stage(file, None, bucket="versions", locks="drop")

    with pytest.raises(ToolFailedError, match="versions/from before could not be stored"):
        await app.recipe.restore(record, app.progress)

    await app.recipe.discard(record)


async def test_a_bucket_that_a_client_makes_in_between_is_the_clients(source: Source, target: Target) -> None:
    app = target.app
    record, _ = await app.stage(source.objects.file, None, bucket="versions", locks="drop")
    async with client_of(target.server) as client:
        await client.call("PUT", "versions")
        await put(client, "versions", "a client's", b"x")

        with pytest.raises(ServiceError, match="versions is there already"):
            await app.recipe.restore(record, app.progress)

        assert (await client.call("GET", "versions", "a client's")).body == b"x"
        await client.call("DELETE", "versions", headers={"x-minio-force-delete": "true"})
    await app.recipe.discard(record)


async def test_what_a_killed_agent_made_is_deleted_by_the_next(
    source: Source, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = target.app
    record, _ = await app.stage(source.objects.file, None, bucket="versions", locks="drop")

    class KilledError(BaseException):
        """The process is gone."""

    async def killed(*arguments: object, **options: object) -> None:
        raise KilledError

    with monkeypatch.context() as patches:
        patches.setattr(portable_import, "apply_settings", killed)
        with pytest.raises(KilledError):
            await app.recipe.restore(record, app.progress)
    assert "versions" in await view(target.server)

    assert await app.recover(record) is Recovered.PREVIOUS
    await app.recipe.discard(record)


async def test_a_server_without_the_admin_api_is_exported_with_what_s3_tells_and_nothing_is_imported_into_it(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def is_none(client: Client) -> None:
        return None

    monkeypatch.setattr("agent.recipes.minio.look_if_minio", is_none)

    exported = await source.app.export("s3")
    described = await source.app.recipe.describe()
    with pytest.raises(AppUnavailableError, match="another S3 server"):
        await source.app.stage(exported.file)

    assert exported.fingerprint is not None
    assert source.objects.fingerprint is not None
    differing = source.objects.fingerprint.differences(exported.fingerprint)
    assert differing
    assert {text.partition(" of bucket")[0] for text in differing} == {"settings"}
    assert exported.header.engine == described.engine == "s3"
    assert any("versioning, object lock and tags" in warning for warning in exported.warnings)
    assert described.can_export.is_possible
    assert "another S3 server" in described.can_import.obstacle
    with tarfile.open(fileobj=io.BytesIO(exported.file)) as archive:
        settings = {name for name in archive.getnames() if name.startswith("settings/")}
    assert "settings/versions/versioning.xml" in settings
    assert "settings/plain/policy.json" not in settings


async def test_another_server_that_keeps_no_versions_goes_into_a_minio(target: Target, tmp_path: Path) -> None:
    bodies = {"a/b": b"1", "keys/a + b%20c & 日本語": b"content", "<&>'\"": b"", "large": os.urandom(3 << 20)}
    with RcloneServer(rclone()) as server:
        async with client_of(server) as client:
            for bucket in ("many", "things"):
                await client.call("PUT", bucket)
            for key, body in bodies.items():
                await put(client, "things", key, body, x_amz_meta_colour="green", content_type="text/odd")
            # More than a page of a listing has.
            for number in range(1001):
                (server.drive / "many" / f"{number}").touch()
        other = MinioApp(server, tmp_path / "other", {"directory": ""})

        exported = await other.export("s3")
        described = await other.recipe.describe()

    app = MinioApp(target.server, tmp_path / "target", {"directory": ""})
    record, preview = await app.stage(exported.file, None, bucket="things")
    await app.recipe.restore(record, app.progress)

    assert any("versioning, object lock and tags" in warning for warning in exported.warnings)
    assert described.can_export.is_possible
    assert "another S3 server" in described.can_import.obstacle
    assert exported.counts["objects"] == exported.counts["versions"] == 1001 + len(bodies)
    assert preview.bridging.startswith("Written by another S3 server")
    here = await app.recipe.fingerprint(app.progress)
    assert exported.fingerprint is not None
    assert here.parts["bucket things"] == exported.fingerprint.parts["bucket things"]
    async with client_of(target.server) as client:
        answers = {key: await client.call("GET", "things", key) for key in bodies}
    assert {key: answer.body for key, answer in answers.items()} == bodies
    assert {answer.headers["x-amz-meta-colour"] for answer in answers.values()} == {"green"}
    await app.recipe.undo(record, app.progress)
