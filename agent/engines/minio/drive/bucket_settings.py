"""A bucket's settings as they lie on a drive, put into a few words for a fingerprint: equal words, equal settings.

They are the content of `.minio.sys/buckets/<bucket>/.metadata.bin`: MessagePack after four bytes of format and version.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import msgspec

from agent.archives.members import printable
from agent.engines.minio.drive import contents
from agent.engines.minio.drive.comparing import read_own
from agent.engines.minio.drive.layout import BUCKETS, META
from agent.engines.minio.drive.xlmeta import ObjectMeta, only_once

_NO_TARGETS = (b"", b"<BucketTargets></BucketTargets>", b"null", b"{}")
_EMPTY_LIST = re.compile(rb'\s*\{\s*"targets"\s*:\s*(?:\[\s*\]|null)\s*\}\s*')
"""What is left where the last one was removed."""
NONE = "none"
"""They are not there; a server has them for each of its buckets."""
WITH_KEYS = "with keys"
"""With those of another server, for replication: sealed in an archive, so that nothing more is said of them."""
_LARGE = "large"
"""More than a server keeps in an xl.meta: not looked at."""
_UNREADABLE = "unreadable"
_EMPTY = re.compile(rb"\s*<(\w+)[^>]*?(?:/>|>\s*</\1>)\s*")
"""A setting that says nothing, as servers add some of their own accord."""
FORMAT_BYTES = 4
"""Of format and version, before the settings."""
_FORMAT = b"\1\0\1\0"
_NAME = "Name"


class UnreadableSettingsError(ValueError):
    """No server would take them for the settings of a bucket, or some for those of another one; it says why."""


class Settings(msgspec.Struct, rename="pascal"):
    """Without names and dates."""

    lock_enabled: bool = False
    policy_config_json: bytes = msgspec.field(default=b"", name="PolicyConfigJSON")
    notification_config_xml: bytes = msgspec.field(default=b"", name="NotificationConfigXML")
    lifecycle_config_xml: bytes = msgspec.field(default=b"", name="LifecycleConfigXML")
    object_lock_config_xml: bytes = msgspec.field(default=b"", name="ObjectLockConfigXML")
    versioning_config_xml: bytes = msgspec.field(default=b"", name="VersioningConfigXML")
    encryption_config_xml: bytes = msgspec.field(default=b"", name="EncryptionConfigXML")
    tagging_config_xml: bytes = msgspec.field(default=b"", name="TaggingConfigXML")
    quota_config_json: bytes = msgspec.field(default=b"", name="QuotaConfigJSON")
    replication_config_xml: bytes = msgspec.field(default=b"", name="ReplicationConfigXML")
    bucket_targets_config_json: bytes = msgspec.field(default=b"", name="BucketTargetsConfigJSON")


class _Target(msgspec.Struct):
    endpoint: str = ""
    targetbucket: str = ""


class _Targets(msgspec.Struct):
    targets: list[_Target] = []


def holds_targets(content: bytes) -> bool:
    """Whether a file of a bucket's remote targets has any; it is there for most buckets."""
    return content.strip() not in _NO_TARGETS and not _EMPTY_LIST.fullmatch(content)


def bucket_of(path: str) -> str:
    """Whose settings a file is, by its path below a drive; empty: it is another file."""
    parts = path.split("/")
    is_one = len(parts) == 5 and parts[:2] == [".minio.sys", "buckets"] and parts[3:] == [".metadata.bin", META]
    return parts[2] if is_one else ""


def told(meta: ObjectMeta) -> str:
    """The settings in the xl.meta of a file of them, in a few words."""
    if not meta.versions or meta.versions[0].is_marker:
        return NONE
    if not meta.versions[0].is_inline:
        return _LARGE
    settings = _settings_in(meta)
    if settings is None:
        return _UNREADABLE
    # Of an empty list nothing more is said either, in fingerprints that have been made.
    if settings.bucket_targets_config_json.strip() not in _NO_TARGETS:
        return WITH_KEYS
    said = [
        b"" if isinstance(value, bytes) and _EMPTY.fullmatch(value) else value
        for value in msgspec.structs.astuple(settings)
    ]
    return hashlib.sha256(msgspec.msgpack.encode(said)).hexdigest()[:32]


def strictly(content: bytes, *, bucket: str) -> Settings:
    """A bucket's settings, where there is but one way to read them, which is MinIO's.

    Args:
        content: of the file that holds them.
    Raises:
        UnreadableSettingsError: they are not so.
    """
    encoded = content[FORMAT_BYTES:]
    try:
        if not content.startswith(_FORMAT):
            raise ValueError("another format")
        named = only_once(encoded, msgspec.msgpack.decode(encoded, type=dict[str, object])).get(_NAME, bucket)
        settings = msgspec.msgpack.decode(encoded, type=Settings)
    except (msgspec.DecodeError, ValueError) as failure:
        raise UnreadableSettingsError("no MinIO reads them") from failure
    if named != bucket:
        raise UnreadableSettingsError(f"they say that they are those of bucket {printable(str(named))}")
    return settings


def on_drive(drive: Path, bucket: str) -> Settings | None:
    """Those of a bucket that is in place; None: they are not there, or cannot be read."""
    try:
        return strictly(read_own(drive / BUCKETS / bucket / ".metadata.bin"), bucket=bucket)
    except (OSError, ValueError):
        return None


def targets_in(settings: Settings) -> list[str]:
    """The servers and buckets that a bucket replicates to."""
    if not holds_targets(settings.bucket_targets_config_json):
        return []
    try:
        found = msgspec.json.decode(settings.bucket_targets_config_json, type=_Targets).targets
    except (msgspec.DecodeError, ValueError):
        # A KMS has encrypted it.
        return ["another server"]
    return [printable(f"{target.endpoint}/{target.targetbucket}") for target in found]


def _settings_in(meta: ObjectMeta) -> Settings | None:
    try:
        return msgspec.msgpack.decode(contents.newest_inline(meta)[FORMAT_BYTES:], type=Settings)
    except (msgspec.DecodeError, ValueError):
        return None
