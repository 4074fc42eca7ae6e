"""The keys of other servers in the settings of buckets that replicate to them: found in a snapshot, and left out of it.

They lie in a bucket's `.metadata.bin`, beside its other settings. Left out are the targets with all that is said of
them, and the rules that need them: in their places stands what says nothing, as long as they were, so that nothing but
MinIO's sum of the file changes with them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from agent.archives.walking import walk
from agent.engines.filesystem import DIRECTORY, replace_file
from agent.engines.minio.drive import contents, xlmeta
from agent.engines.minio.drive.bucket_settings import FORMAT_BYTES, holds_targets
from agent.engines.minio.drive.comparing import read_file
from agent.engines.minio.drive.layout import BUCKETS, META
from common.errors import SourceUnreadableError

_SETTINGS = ".metadata.bin"
_TARGETS = "BucketTargetsConfigJSON"
_NOTHING = {
    _TARGETS: b'{"targets":[]}',
    # With it MinIO would decrypt the targets.
    "BucketTargetsConfigMetaJSON": b"{}",
    "ReplicationConfigXML": b"<ReplicationConfiguration></ReplicationConfiguration>",
}
"""What says nothing, by the name of the setting in whose place it stands."""
_KEY = b'"secretKey"'
_ANOTHER_KIND = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
"""What is met where something else lies in the place of settings."""


def buckets_with_keys(root: int) -> list[str]:
    """Those whose settings hold keys, or may.

    Args:
        root: descriptor of a snapshot.
    Raises:
        SourceUnreadableError: the disk does not give a bucket's settings.
    """
    return sorted(name for name, found in _settings_with_keys(root))


def leave_out(root: int) -> list[str]:
    """Leave the keys out of a snapshot; names of the buckets that had any.

    Raises:
        SourceUnreadableError: there are some in what cannot be read; or as of `buckets_with_keys`.
    """
    buckets = []
    for bucket, found in _settings_with_keys(root):
        try:
            if found is None:
                raise ValueError("they cannot be read")
            found.leave_out()
        except ValueError as failure:
            raise SourceUnreadableError(
                f"The settings of bucket {bucket} hold the keys of another server, which cannot be left out: "
                f"{failure}.",
                next_step="Export with `secrets=sealed`; or set up the bucket's replication anew, and export again.",
            ) from failure
        buckets.append(bucket)
    return sorted(buckets)


@dataclass(frozen=True)
class _Settings:
    """Of a bucket.

    Attributes:
        directory, name: of the file that holds them.
        stored: as they lie in it, with MinIO's sums.
    """

    directory: str
    name: str
    root: int
    stored: bytes
    block_bytes: int

    def values(self) -> dict[str, bytes]:
        """The texts among them, by MinIO's names."""
        content = contents.without_sums(self.stored, self.block_bytes)[FORMAT_BYTES:]
        found = msgspec.msgpack.decode(content, type=dict[str, object])
        return {name: value for name, value in found.items() if isinstance(value, bytes)}

    def leave_out(self) -> None:
        """Write the file anew.

        Raises:
            ValueError: what is to be left out is not in one place.
        """
        content = contents.without_sums(self.stored, self.block_bytes)
        values = self.values()
        for name, nothing in _NOTHING.items():
            if len(value := values.get(name, b"")) > len(nothing):
                content = _replaced(content, _setting(name, value), _setting(name, nothing.ljust(len(value))))
        parent = os.open(self.directory, DIRECTORY, dir_fd=self.root)
        try:
            whole = read_file(self.name, parent)
            changed = _replaced(whole, self.stored, contents.with_sums(content, self.block_bytes))
            replace_file(self.name, changed, parent=parent)
        finally:
            os.close(parent)


def _setting(name: str, value: bytes) -> bytes:
    """As MinIO writes it: the name, the value's length, the value."""
    return msgspec.msgpack.encode(name) + msgspec.msgpack.encode(value)


def _replaced(content: bytes, old: bytes, new: bytes) -> bytes:
    if (places := content.count(old)) != 1:
        raise ValueError(f"one of them is in {places} places")
    return content.replace(old, new)


def _settings_with_keys(root: int) -> Iterator[tuple[str, _Settings | None]]:
    """By bucket; None: what holds the keys cannot be read, or lies beside the settings."""
    for bucket in _directories(root, BUCKETS):
        found: _Settings | None = None
        try:
            try:
                found = _settings_of(root, f"{BUCKETS}/{bucket}/{_SETTINGS}")
                has_keys = holds_targets(found.values().get(_TARGETS, b""))
            except (*_ANOTHER_KIND, ValueError, LookupError, msgspec.DecodeError):
                has_keys, found = _shows_key(root, f"{BUCKETS}/{bucket}"), None
        except OSError as failure:
            raise SourceUnreadableError(
                f"The settings of bucket {bucket} cannot be read: {failure.strerror}; they may hold the keys of "
                "another server.",
                next_step="See whether the drive is well; the server's log says more.",
            ) from failure
        if has_keys:
            yield bucket, found


def _settings_of(root: int, path: str) -> _Settings:
    """ValueError, LookupError: they are kept in another way than is known here."""
    meta = xlmeta.read(read_file(f"{path}/{META}", root))
    version = meta.versions[0]
    if not version.block_bytes:
        raise ValueError("another way to keep data")
    if version.is_inline:
        return _Settings(path, META, root, meta.inline[version.id], version.block_bytes)
    [(number, _)] = version.parts
    directory, name = f"{path}/{version.data_directory}", f"part.{number}"
    return _Settings(directory, name, root, read_file(f"{directory}/{name}", root), version.block_bytes)


def _shows_key(root: int, start: str) -> bool:
    """Whether a key stands in clear in a file below a path."""
    directory = os.open(start, DIRECTORY, dir_fd=root)
    try:
        return any(
            _KEY in read_file(found.name, found.parent)
            for found in walk(directory)
            if stat.S_ISREG(found.status.st_mode)
        )
    finally:
        os.close(directory)


def _directories(root: int, path: str) -> list[str]:
    try:
        directory = os.open(path, DIRECTORY, dir_fd=root)
    except FileNotFoundError:
        return []
    try:
        with os.scandir(directory) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    finally:
        os.close(directory)
