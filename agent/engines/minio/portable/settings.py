"""The settings of buckets for a portable archive: files, as a server gives them, equal where the settings are."""

from __future__ import annotations

import contextlib
import io
import os
import re
import xml.etree.ElementTree as ET
import zipfile

import msgspec

from agent.engines.minio.drive.bucket_settings import holds_targets
from agent.engines.minio.drive.layout import TARGETS_FILE
from agent.engines.minio.portable.form import LEFT_OUT_SETTINGS
from agent.engines.minio.server.client import Client, RefusedError, parse_xml

WITHOUT_ADMIN_API = (
    "The server is another than MinIO, or lets the agent's user not administer it. Of the settings of buckets only "
    "versioning, object lock and tags are in the archive: not policies, rules, quotas, encryption and notifications."
)
_MAX_SETTINGS_BYTES = 32 << 20
_POLICY, _TAGS = "policy.json", "tagging.xml"
_TAG = re.compile(rb"(<Tag>.*?</Tag>)", re.DOTALL)
_S3_SETTINGS = {
    "versioning": ("versioning.xml", "VersioningConfiguration"),
    "object-lock": ("object-lock.xml", "ObjectLockConfiguration"),
    "tagging": ("tagging.xml", "Tagging"),
}
"""What S3 itself tells of a bucket: MinIO's file for it, and the name of its root element."""


async def settings_by_bucket(client: Client) -> tuple[dict[str, dict[str, bytes]], str]:
    """Of a MinIO, by bucket and file, and a warning about what is left out; empty: nothing is."""
    exported = await client.admin("GET", "export-bucket-metadata")
    settings: dict[str, dict[str, bytes]] = {}
    left_out: set[str] = set()
    with zipfile.ZipFile(io.BytesIO(exported.body)) as archive:
        for entry in archive.infolist():
            bucket, _, name = entry.filename.partition("/")
            if name in LEFT_OUT_SETTINGS:
                if name != TARGETS_FILE or holds_targets(archive.read(entry)):
                    left_out.add(bucket)
            elif entry.file_size <= _MAX_SETTINGS_BYTES:
                name = os.path.basename(name)
                settings.setdefault(bucket, {})[name] = in_order(name, archive.read(entry))
    if not left_out:
        return settings, ""
    names = ", ".join(sorted(left_out))
    return settings, f"Replication of {names} is not in the archive: it needs the keys of other servers."


async def settings_of_other(client: Client, bucket: str) -> dict[str, bytes]:
    """By file, of another server than MinIO."""
    found = {}
    for name, (file, root) in _S3_SETTINGS.items():
        # Not set, or not known there.
        with contextlib.suppress(RefusedError):
            answer = await client.call("GET", bucket, query={name: ""})
            if (name != "versioning" or b"<Status>" in answer.body) and (content := _rooted(answer.body, root)):
                found[file] = in_order(file, content)
    return found


def in_order(file: str, content: bytes) -> bytes:
    """A file of settings with all that has no order in that of its text: a MinIO gives it in another one each time.

    What cannot be read stays as it is.
    """
    if file == _POLICY:
        with contextlib.suppress(msgspec.DecodeError, ValueError, RecursionError):
            return msgspec.json.encode(_policy_in_order(msgspec.json.decode(content)))
    if file == _TAGS:
        parts = _TAG.split(content)
        parts[1::2] = sorted(parts[1::2])
        return b"".join(parts)
    return content


def _policy_in_order(part: object) -> object:
    """Statements have an order; actions, resources and values of conditions have none."""
    if isinstance(part, dict):
        return {name: _policy_in_order(value) for name, value in part.items()}
    if not isinstance(part, list):
        return part
    found = [_policy_in_order(value) for value in part]
    return found if any(isinstance(value, dict) for value in found) else sorted(found, key=msgspec.json.encode)


def _rooted(answer: bytes, name: str) -> bytes:
    """Some servers call the root after the request, MinIO takes it by S3's name only. Empty: an answer to another."""
    element = parse_xml(answer)
    called = element.tag.rpartition("}")[2]
    if called == name:
        return answer
    if not called.endswith("Response"):
        # Servers that do not know a question may take it for a listing.
        return b""
    for found in element.iter():
        found.tag = found.tag.rpartition("}")[2]
    element.tag = name
    return ET.tostring(element)
