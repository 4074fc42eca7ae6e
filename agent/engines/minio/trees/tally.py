"""What a drive's tree holds, as `census` counts it: an answer of the jailed child that does."""

from __future__ import annotations

import msgspec

from agent.engines.minio.drive import bucket_settings
from agent.engines.minio.drive.comparing import Changes
from agent.engines.minio.drive.sums import BucketSum, fingerprint_of
from agent.engines.minio.drive.tiers import Tiered
from common.fingerprints import Fingerprint

SCHEME = "minio/2"


class Bucket(msgspec.Struct):
    """What is in a bucket.

    Attributes:
        objects: keys with at least one version.
        nested: of them, those below another object; a listing hides them.
        fingerprint: of the versions, lower-case hex.
        settings: in a few words; see bucket_settings.py.
    """

    objects: int = 0
    versions: int = 0
    markers: int = 0
    bytes: int = 0
    nested: int = 0
    fingerprint: str = ""
    settings: str = bucket_settings.NONE


class Sample(msgspec.Struct):
    """An object for a server to try.

    Attributes:
        path: of its directory, below the tree.
        key: as clients call it.
        size: of its newest version.
        is_tiered: a tier holds its content.
    """

    bucket: str
    path: str
    key: str
    size: int
    is_encrypted: bool = False
    is_tiered: bool = False


class Tally(msgspec.Struct):
    """What a tree holds.

    Attributes:
        header_version: the highest of any xl.meta.
        encrypted: versions that need the server's KMS; `customer_encrypted`: those that need a caller's key.
        damaged: versions whose data is not there or was found not to be what was stored, or whose xl.meta has another
            checksum, and xl.meta that cannot be read; the first of them by name.
        made_up: of those, a few by name that no drive has made so; see xlmeta.MadeUpError.
        orphans: objects whose data is there and whose xl.meta is not, and files in buckets that are no object's, a few
            by name; looked for as contents are.
        drive: what the tree's format.json says of it, for example "xl-single"; empty where it has none.
        unlisted: objects that no listing shows for the names above them.
        tiered: versions whose content is not on the drive; their bytes are in those of their buckets.
        unproven: versions whose content nothing here could compare with a sum; counted where contents are read.
        damaged_config, damaged_settings: files of the server's own that are not what it stored, a few by name: users,
            policies and configuration; settings of buckets. Looked for as contents are.
        own_unproven: such files of which it is not known.
        parents: whose the service accounts are, with a few of each by name, where their files tell it; looked for as
            contents are.
        deciding: settings of the configuration that may take root's access away; see root_access.py. Looked for as
            contents are.
        collectors: whom the server tells what it does; see call_logs.py. Looked for as contents are.
        strange: what is no part of a drive's data, a few by name.
        replicating: where buckets replicate to, by name; looked for as contents are.
        events: whom buckets tell of their changes, by name, and `event_targets`: whom the configuration knows; see
            event_targets.py. Looked for as contents are.
        sites: where the whole server replicates to; looked for as contents are.
        expiring: buckets with rules that delete objects by their age; looked for as contents are.
        samples: a few small objects, each of another kind.
        changes: by kind, what becomes of this tree's things in that of a `Comparison`.
        is_complete: False when the time was up.
    """

    buckets: dict[str, Bucket] = {}
    header_version: int = 0
    encrypted: int = 0
    customer_encrypted: int = 0
    damaged: int = 0
    damaged_names: list[str] = []
    made_up: list[str] = []
    orphans: list[str] = []
    drive: str = ""
    unlisted: int = 0
    tiered: Tiered = msgspec.field(default_factory=Tiered)
    unproven: int = 0
    damaged_config: list[str] = []
    damaged_settings: list[str] = []
    own_unproven: int = 0
    parents: dict[str, list[str]] = {}
    deciding: dict[str, list[str]] = {}
    collectors: list[str] = []
    strange: list[str] = []
    samples: list[Sample] = []
    replicating: dict[str, list[str]] = {}
    events: dict[str, list[str]] = {}
    event_targets: list[str] = []
    sites: list[str] = []
    expiring: list[str] = []
    has_config: bool = False
    changes: dict[str, Changes] = {}
    is_complete: bool = True

    def total(self, name: str) -> int:
        """A count of Bucket, of all buckets."""
        return sum(int(getattr(bucket, name)) for bucket in self.buckets.values())

    def counts(self) -> dict[str, int]:
        """For headers and previews: what is here."""
        return {
            "buckets": len(self.buckets),
            **{name: self.total(name) for name in ("objects", "versions", "markers")},
            "bytes": self.total("bytes") - self.tiered.bytes,
        }

    def fingerprint(self) -> Fingerprint:
        """Of all buckets and their settings, and how much of that is not here; users are not in it."""
        sums = {
            name: BucketSum(found.versions, found.bytes, int(found.fingerprint or "0", 16), found.settings)
            for name, found in self.buckets.items()
        }
        return fingerprint_of(SCHEME, {name: found.text() for name, found in sums.items()}, self.tiered.parts())
