"""What a drive's tree holds, counted from its `xl.meta`, with a fingerprint of each bucket.

The fingerprint of a bucket is a sum, so it has no order: of a SHA-256 for each version, over its name, id, time in
milliseconds, size, ETag and metadata. The ETag stands for the content: MinIO computes it when an object is stored.
Beside the sum stand the bucket's settings.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from agent.archives.members import printable
from agent.archives.walking import Found, walk
from agent.engines.filesystem import DIRECTORY, read_small_file
from agent.engines.minio.drive import (
    bucket_settings,
    call_logs,
    configuration,
    contents,
    event_targets,
    identities,
    replication_sites,
    root_access,
    xlmeta,
)
from agent.engines.minio.drive.comparing import Comparison, read_file
from agent.engines.minio.drive.layout import (
    CONFIG,
    FORMAT,
    META,
    SYSTEM,
    is_bucket_name,
    is_data_directory_name,
    is_in_place,
    is_listed,
    is_transient,
    key_of,
    own_name,
    system_roots,
)
from agent.engines.minio.drive.sums import number_of
from agent.engines.minio.trees.tally import Bucket, Sample, Tally

_NAMED = 5
_SAMPLES = 8
_MOST_FORMAT_BYTES = 64 << 10
_SAMPLE_BYTES = 8 << 20


class _Format(msgspec.Struct):
    format: str = ""


class Census:
    """Counts entries as a walk meets them.

    Attributes:
        tally: so far; the buckets' fingerprints are in it after `finish`.
    """

    def __init__(self, root: int, comparison: Comparison | None = None, *, proves: bool = False) -> None:
        """
        Args:
            root: descriptor of the tree.
            comparison: with another; None: there is none.
            proves: read the contents, and compare them with what stands in the xl.meta; see contents.py.
        """
        self.tally = Tally()
        self._root = root
        self._comparison = comparison
        self._budget = contents.Budget() if proves else None
        self._own_budget = contents.own_budget()
        self._sums: dict[str, int] = {}
        self._told: dict[str, str] = {}
        self._above: list[tuple[str, bool]] = []
        self._kinds: set[tuple[bool, bool, bool, str]] = set()

    def meet(self, found: Found) -> None:
        """Any entry of the tree but an xl.meta."""
        top, _, rest = found.path.partition("/")
        if top == SYSTEM:
            self.tally.has_config = self.tally.has_config or found.path == f"{SYSTEM}/config"
        elif is_bucket_name(top):
            if not rest:
                self.tally.buckets.setdefault(top, Bucket())
            elif self._budget is not None and self._is_orphan(found):
                self._note_orphan(found.path)
        is_file_or_directory = found.is_directory or stat.S_ISREG(found.status.st_mode)
        if not is_file_or_directory or not is_in_place(found.path, is_directory=found.is_directory):
            self._note(self.tally.strange, found.path)

    def add(self, found: Found, content: bytes) -> None:
        """An xl.meta with its content."""
        bucket, _, rest = found.path.partition("/")
        try:
            meta = xlmeta.read(content)
        except ValueError as failure:
            if bucket != SYSTEM:
                self._damaged(found.path)
                if isinstance(failure, xlmeta.MadeUpError):
                    self._note(self.tally.made_up, found.path.removesuffix(f"/{META}"))
            else:
                self._own_damaged(found.path)
            return
        self.tally.header_version = max(self.tally.header_version, meta.header_version)
        if bucket == SYSTEM:
            if of_bucket := bucket_settings.bucket_of(found.path):
                self._told[of_bucket] = bucket_settings.told(meta)
            if self._budget is not None:
                try:
                    xlmeta.require_one(content)
                    self._require_own_whole(meta, found.parent)
                    self._look_into(found, content)
                except (OSError, ValueError) as failure:
                    self._own_damaged(found.path, why=str(failure))
            return
        path = rest.removesuffix(f"/{META}")
        key = key_of(path)
        counted = self.tally.buckets.setdefault(bucket, Bucket())
        counted.objects += bool(meta.versions)
        counted.nested += self._is_nested(bucket, path)
        self.tally.unlisted += not is_listed(path)
        for tier in meta.freed:
            self.tally.tiered.add_freed(bucket, key, tier)
        for version in meta.versions:
            counted.versions += 1
            counted.markers += version.is_marker
            counted.bytes += version.size
            self.tally.tiered.add(bucket, key, version)
            self.tally.encrypted += version.encryption == "server"
            self.tally.customer_encrypted += version.encryption == "customer"
        numbers = numbers_of(bucket, key, meta.versions)
        self._sums[bucket] = self._sums.get(bucket, 0) + sum(numbers)
        if self._comparison is not None:
            self._comparison.meet(
                found.path, dict(zip((version.id for version in meta.versions), numbers, strict=True))
            )
        if meta.is_intact:
            damaged = sum(not self._is_whole(version, meta.inline, found.parent) for version in meta.versions)
        else:
            damaged = max(len(meta.versions), 1)
        for _ in range(damaged):
            self._damaged(found.path)
        if meta.versions and not damaged:
            self._sample(bucket, path, key, meta.versions)

    def add_sealed(self, path: str) -> None:
        """A file that is closed with a passphrase."""
        if of_bucket := bucket_settings.bucket_of(path):
            self._told[of_bucket] = bucket_settings.WITH_KEYS

    def finish(self) -> Tally:
        """All was met."""
        for name, bucket in self.tally.buckets.items():
            bucket.settings = self._told.get(name, bucket_settings.NONE)
            bucket.fingerprint = f"{self._sums.get(name, 0) % (1 << 256):064x}"
        if self._comparison is not None:
            self.tally.changes = self._comparison.changes
        return self.tally

    def _is_whole(self, version: xlmeta.Version, inline: Mapping[str, bytes], parent: int) -> bool:
        if not _has_parts(version, parent):
            return False
        if self._budget is None:
            return True
        proof = contents.proof_on_drive(version, inline, parent, self._budget)
        self.tally.unproven += proof is contents.Proof.UNKNOWN
        return proof is not contents.Proof.DAMAGED

    def _require_own_whole(self, meta: xlmeta.ObjectMeta, parent: int) -> None:
        """A file of the server's own, which reads nothing of it otherwise; ValueError."""
        is_whole = meta.is_intact
        for version in meta.versions:
            proof = contents.Proof.DAMAGED
            if _has_parts(version, parent):
                proof = contents.proof_on_drive(version, meta.inline, parent, self._own_budget, is_own=True)
            self.tally.own_unproven += proof is contents.Proof.UNKNOWN
            is_whole &= proof is not contents.Proof.DAMAGED
        if not is_whole:
            raise ValueError

    def _look_into(self, found: Found, content: bytes) -> None:
        """Note what an import of one of the server's own files brings with it; raises as `contents.own`, and
        ValueError for what no MinIO reads."""
        if bucket := bucket_settings.bucket_of(found.path):
            self._settings(bucket, bucket_settings.strictly(contents.own(content, found.parent), bucket=bucket))
        elif account := identities.service_account_of(found.path):
            parent = identities.parent_in(contents.own(content, found.parent))
            self._note(self.tally.parents.setdefault(parent, []), account)
        elif found.path == configuration.FILE:
            settings = configuration.settings_in(contents.own(content, found.parent))
            self.tally.deciding = root_access.deciding_in(settings)
            self.tally.event_targets = event_targets.configured_in(settings or ())
            self.tally.collectors = call_logs.collectors_in(settings or ())
        elif found.path == replication_sites.FILE:
            self.tally.sites = replication_sites.sites_in(contents.own(content, found.parent))

    def _settings(self, bucket: str, settings: bucket_settings.Settings) -> None:
        if targets := bucket_settings.targets_in(settings):
            self.tally.replicating[bucket] = targets[:_NAMED]
        if named := event_targets.named_in(settings.notification_config_xml):
            self.tally.events[bucket] = named
        if b"<Expiration>" in settings.lifecycle_config_xml:
            self.tally.expiring.append(bucket)

    def _sample(self, bucket: str, path: str, key: str, versions: list[xlmeta.Version]) -> None:
        newest = versions[0]
        size = sum(version.size for version in versions)
        is_plain = path == key and newest.encryption != "customer" and not newest.is_marker
        kind = (bool(newest.parts), bool(newest.encryption), newest.is_compressed, newest.tier)
        if is_plain and size <= _SAMPLE_BYTES and len(self._kinds) < _SAMPLES and kind not in self._kinds:
            self._kinds.add(kind)
            self.tally.samples.append(
                Sample(
                    bucket,
                    f"{bucket}/{path}",
                    key,
                    newest.size,
                    is_encrypted=bool(newest.encryption),
                    is_tiered=bool(newest.tier),
                )
            )

    def _is_nested(self, bucket: str, path: str) -> bool:
        """Whether a directory above it is an object too."""
        names = [bucket, *path.split("/")[:-1]]
        common = 0
        while common < min(len(names), len(self._above)) and self._above[common][0] == names[common]:
            common += 1
        del self._above[common:]
        for depth in range(common, len(names)):
            is_object = depth > 0 and _is_file("/".join([*names[: depth + 1], META]), self._root)
            self._above.append((names[depth], is_object))
        return any(is_object for _, is_object in self._above)

    def _damaged(self, path: str) -> None:
        self.tally.damaged += 1
        self._note(self.tally.damaged_names, path.removesuffix(f"/{META}"))

    def _own_damaged(self, path: str, *, why: str = "") -> None:
        names = self.tally.damaged_config if path.startswith(f"{CONFIG}/") else self.tally.damaged_settings
        if self._budget is not None and len(names) < _NAMED:
            name = own_name(path.removesuffix(f"/{META}"))
            names.append(f"{name} ({why})" if why else name)

    @staticmethod
    def _is_orphan(found: Found) -> bool:
        """A file without the xl.meta that may name it; a part on its way in while a drive was copied is one too."""
        is_part = found.name.startswith("part.")
        is_known = found.name.startswith(META) or (is_part and _is_file(f"../{META}", found.parent))
        return not found.is_directory and not is_known

    def _note_orphan(self, path: str) -> None:
        *above, name = path.split("/")
        name = printable("/".join(above[:-1]) if name.startswith("part.") and len(above) > 2 else path)
        if name not in self.tally.orphans:
            self._note(self.tally.orphans, name)

    @staticmethod
    def _note(names: list[str], path: str) -> None:
        if len(names) < _NAMED:
            names.append(printable(path))


def count(root: int, *, seconds: float | None = None, only: str = "", beside: str = "", proves: bool = False) -> Tally:
    """Go through a tree.

    Args:
        seconds: most time to take; None: as long as it takes.
        only: the one bucket to look at; empty: everything.
        beside: path below the root of another tree to compare it with; empty: none.
        proves: read the contents too; see Census. Only where it is compared with nothing.
    """
    if not beside:
        return _count(root, Census(root, proves=proves), seconds=seconds, only=only)
    other = os.open(beside, DIRECTORY, dir_fd=root)
    try:
        comparison = Comparison(other, lambda path, meta: _numbers_by_id(path, meta.versions))
        tally = _count(root, Census(root, comparison), seconds=seconds, only=only)
        if not only:
            comparison.meet_accounts(root)
        return tally
    finally:
        os.close(other)


def _count(root: int, census: Census, *, seconds: float | None, only: str) -> Tally:
    ends_at = None if seconds is None else time.monotonic() + seconds
    # All of them, also where the time is up before their turn.
    with os.scandir(root) as entries:
        for entry in entries:
            if is_bucket_name(entry.name) and only in ("", entry.name) and entry.is_dir(follow_symlinks=False):
                census.tally.buckets.setdefault(entry.name, Bucket())
    census.tally.drive = _drive_of(root)
    for found in data_of(root, only=only):
        if not is_meta(found):
            census.meet(found)
            continue
        try:
            census.add(found, read_meta(found))
        except FileNotFoundError:
            continue
        if ends_at is not None and time.monotonic() > ends_at:
            census.tally.is_complete = False
            break
    return census.finish()


def data_of(root: int, *, only: str = "") -> Iterator[Found]:
    """The entries of a tree, without those of `.minio.sys` that are not data; of one bucket alone where it is named."""
    inside = tuple(system_roots())

    def is_left_out(path: str, name: str) -> bool:
        if only and "/" not in path:
            return path != only
        is_data = path.count("/") > 1 or path in inside
        return path.startswith(f"{SYSTEM}/") and (not is_data or is_transient(path.rpartition("/")[0], name))

    return walk(root, is_left_out=is_left_out)


def _drive_of(root: int) -> str:
    try:
        content = read_small_file(FORMAT, parent=root, most_bytes=_MOST_FORMAT_BYTES)
        return msgspec.json.decode(content, type=_Format).format
    except (OSError, msgspec.DecodeError):
        return ""


def is_meta(found: Found) -> bool:
    """Whether it is an object's xl.meta."""
    return found.name == META and stat.S_ISREG(found.status.st_mode)


def read_meta(found: Found) -> bytes:
    """The content of an xl.meta; one that is absurdly long is cut, and so made up."""
    return read_file(found.name, found.parent)


def numbers_of(bucket: str, key: str, versions: Sequence[xlmeta.Version]) -> list[int]:
    """What each version adds to its bucket's fingerprint."""
    return [_number(bucket, key, version) for version in versions]


def _numbers_by_id(path: str, versions: Sequence[xlmeta.Version]) -> dict[str, int]:
    bucket, _, rest = path.partition("/")
    key = key_of(rest.removesuffix(f"/{META}"))
    return dict(zip((version.id for version in versions), numbers_of(bucket, key, versions), strict=True))


def _number(bucket: str, key: str, version: xlmeta.Version) -> int:
    metadata = sorted((name.lower(), value) for name, value in version.metadata.items())
    return number_of(
        (
            bucket,
            key,
            version.id,
            "marker" if version.is_marker else "object",
            str(version.modified_ns // 1_000_000),
            str(version.size),
            version.etag,
            *(part for pair in metadata for part in pair),
        )
    )


def _has_parts(version: xlmeta.Version, parent: int) -> bool:
    if version.is_read_otherwise:
        return False
    if not version.data_directory:
        return True
    for number, size in version.parts:
        try:
            status = os.stat(f"{version.data_directory}/part.{number}", dir_fd=parent, follow_symlinks=False)
        except OSError:
            return False
        if status.st_size < size or not is_data_directory_name(version.data_directory):
            return False
    return bool(version.parts)


def _is_file(path: str, root: int) -> bool:
    try:
        return stat.S_ISREG(os.stat(path, dir_fd=root, follow_symlinks=False).st_mode)
    except OSError:
        return False
