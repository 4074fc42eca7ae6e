"""Settings of buckets in portable archives: equal settings have equal fingerprints, however often they are read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from common.fingerprints import Fingerprint
from tests.fixtures.minio_data import ENABLED, EXPIRY, md5_of
from tests.fixtures.minio_servers import StartMinio, client_of
from tests.integration.agent.recipes.minio_apps import MinioApp

_PARTS = ("a", "b", "c", "d", "e")
_STATEMENT: Mapping[str, object] = {"Effect": "Allow", "Principal": {"AWS": ["*"]}}
POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            **_STATEMENT,
            "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:ListMultipartUploadParts"],
            "Resource": [f"arn:aws:s3:::files/{part}/*" for part in _PARTS],
        },
        {
            **_STATEMENT,
            "Action": ["s3:ListBucket"],
            "Resource": ["arn:aws:s3:::files"],
            "Condition": {"StringEquals": {"s3:prefix": _PARTS}, "NumericEquals": {"s3:max-keys": [10]}},
        },
    ],
}
TAGS = "".join(f"<Tag><Key>{part}</Key><Value>v</Value></Tag>" for part in reversed(_PARTS))


async def test_settings_without_an_order_have_one_fingerprint(start_minio: StartMinio, tmp_path: Path) -> None:
    source, target = start_minio(), MinioApp(start_minio(), tmp_path / "target")
    async with client_of(source) as client:
        await client.call("PUT", "files")
        for name, content in {
            "policy": json.dumps(POLICY).encode(),
            "tagging": f"<Tagging><TagSet>{TAGS}</TagSet></Tagging>".encode(),
            "lifecycle": EXPIRY,
            "versioning": ENABLED,
        }.items():
            headers = {"content-md5": md5_of(content)}
            await client.call("PUT", "files", query={name: ""}, body=content, headers=headers)

    exported = await MinioApp(source, tmp_path / "source").export("s3")
    record = await target.import_file(exported.file)

    seen = MinioApp(source, tmp_path / "seen", {"directory": ""})
    again = [await _portable_fingerprint(seen) for _ in range(6)]
    of_target = await _portable_fingerprint(MinioApp(target.server, tmp_path / "there", {"directory": ""}))
    assert [found.parts for found in again] == [exported.fingerprint and exported.fingerprint.parts] * 6
    assert of_target.differences(again[0]) == []
    await target.recipe.undo(record, target.progress)


async def _portable_fingerprint(app: MinioApp) -> Fingerprint:
    return await app.recipe.fingerprint(app.progress)
