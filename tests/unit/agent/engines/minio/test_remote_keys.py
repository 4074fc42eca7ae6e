"""The keys of other servers are taken from where they are in a bucket's settings, and from nowhere else."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from agent.engines.minio.drive import contents, remote_keys, xlmeta
from agent.engines.minio.drive.contents import BLOCK_BYTES
from agent.engines.minio.drive.remote_keys import buckets_with_keys, leave_out
from common.errors import SourceUnreadableError
from tests.fixtures.minio_archives import object_version, pack, xl_meta

SETTINGS = ".minio.sys/buckets/shop/.metadata.bin/xl.meta"
KEYS = b'{"targets":[{"credentials":{"secretKey":"of another server"}}]}'


def _stored(**settings: bytes) -> bytes:
    """As MinIO keeps it: in the xl.meta."""
    content = b"\1\0\1\0" + pack({"Name": "shop", **settings})
    size = len(content)
    version = object_version(
        PartSizes=[size],
        PartASizes=[size],
        Size=size,
        MetaSys={"x-minio-internal-inline-data": b"true"},
    )
    return xl_meta(version, inline=b"\x01" + pack({"null": contents.with_sums(content, BLOCK_BYTES)}))


def _settings(tree: Path) -> dict[str, bytes]:
    meta = xlmeta.read((tree / SETTINGS).read_bytes())
    content = contents.without_sums(meta.inline["null"], BLOCK_BYTES)[4:]
    return {name: value for name, value in msgspec.msgpack.decode(content).items() if name != "Name"}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / SETTINGS).parent.mkdir(parents=True)
    return tmp_path


@pytest.fixture
def root(tree: Path) -> Iterator[int]:
    descriptor = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def test_another_setting_that_holds_the_same_stays_as_it_is(tree: Path, root: int) -> None:
    rules = b"<ReplicationConfiguration><Rule/></ReplicationConfiguration>"
    others = {"PolicyConfigJSON": b"[" + KEYS + b"]", "TaggingConfigXML": b"<of>" + rules + b"</of>"}
    (tree / SETTINGS).write_bytes(_stored(**others, BucketTargetsConfigJSON=KEYS, ReplicationConfigXML=rules))

    assert leave_out(root) == ["shop"]

    found = _settings(tree)
    assert {name: found[name] for name in others} == others
    assert found["BucketTargetsConfigJSON"].strip() == b'{"targets":[]}'
    assert found["ReplicationConfigXML"].strip() == b"<ReplicationConfiguration></ReplicationConfiguration>"


def test_keys_whose_place_is_not_certain_are_not_left_out(tree: Path, root: int) -> None:
    there_too = pack("BucketTargetsConfigJSON") + pack(KEYS)
    stored = _stored(TaggingConfigXML=there_too, BucketTargetsConfigJSON=KEYS)
    (tree / SETTINGS).write_bytes(stored)

    with pytest.raises(SourceUnreadableError, match=r"bucket shop hold the keys .* in 2 places"):
        leave_out(root)

    assert (tree / SETTINGS).read_bytes() == stored


def test_what_lies_beside_the_buckets_is_no_bucket(tree: Path, root: int) -> None:
    (tree / SETTINGS).write_bytes(_stored(BucketTargetsConfigJSON=KEYS))
    (tree / ".minio.sys/buckets/stray").write_text("of somebody")

    assert buckets_with_keys(root) == ["shop"]
    assert leave_out(root) == ["shop"]


def test_a_file_in_the_place_of_settings_is_looked_through(tree: Path, root: int) -> None:
    (tree / ".minio.sys/buckets/other").mkdir()
    (tree / ".minio.sys/buckets/other/.metadata.bin").write_bytes(KEYS)

    assert buckets_with_keys(root) == ["other"]


def test_settings_that_the_disk_does_not_give_stop_an_export_by_the_buckets_name(
    tree: Path, root: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_file(path: str, directory: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    (tree / SETTINGS).write_bytes(_stored())
    monkeypatch.setattr(remote_keys, "read_file", read_file)

    for act in (buckets_with_keys, leave_out):
        with pytest.raises(SourceUnreadableError, match="settings of bucket shop cannot be read: Input/output error"):
            act(root)
