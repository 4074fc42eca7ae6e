"""What an import of a drive would change, from the count of what is staged and a bounded look at what is there."""

from __future__ import annotations

from collections.abc import Sequence

from agent.archives.members import printable
from agent.engines.minio.drive import bucket_settings, contents, tiers
from agent.engines.minio.drive.comparing import ACCOUNTS, Changes
from agent.engines.minio.server.facts import Facts
from agent.engines.minio.trees.tally import Bucket, Tally
from common.headers import ArchiveHeader
from common.wording import counted, some_of

_FREEZE_SECONDS = 0.2
"""Held from a watchdog's start to its end; what is renamed meanwhile does not grow with objects."""
_BUCKETS_A_SECOND = 500
"""Exchanged and listed again: a rename or two and a call each."""
_RESTART_SECONDS = 1.5
_NAMED = 5
_ACCOUNTS_A_SECOND = 2000
"""Read by MinIO before it serves."""


def items(now: Tally, after: Tally, *, keeps_users: bool, has_kms: bool) -> dict[str, Changes]:
    """By kind; without those that were not looked through to the end, but for buckets.

    Args:
        now: compared with the other; where one bucket alone is imported, of that.
        has_kms: users' files are encrypted then: other bytes on each server for the same content.
    """
    found = {"buckets": _of_buckets(now, after)}
    if not now.is_complete:
        return found
    for kind in ("objects", "versions"):
        met = now.changes[kind]
        only_after = max(after.total(kind) - met.same - met.changed, 0)
        found[kind] = Changes(added=only_after, removed=met.removed, changed=met.changed, same=met.same)
    for kind in () if keeps_users else ACCOUNTS:
        met = now.changes.get(kind, Changes())
        if has_kms:
            met = Changes(added=met.added, removed=met.removed, not_compared=met.changed + met.same)
        found[kind] = met
    return found


def _of_buckets(now: Tally, after: Tally) -> Changes:
    found = Changes()
    for name in now.buckets.keys() | after.buckets.keys():
        if name in now.buckets and name in after.buckets and not now.is_complete:
            found.not_compared += 1
        else:
            old, new = (_content(side.buckets[name]) if name in side.buckets else None for side in (now, after))
            found.note(old, new)
    return found


def _content(bucket: Bucket) -> tuple[str, str]:
    """What an import may change of it: its versions, and its settings."""
    return bucket.fingerprint, bucket.settings


def bridging(header: ArchiveHeader | None, facts: Facts, *, archive_version: int, server_version: int) -> str:
    """One sentence when archive and server are of different releases; empty otherwise.

    Args:
        archive_version, server_version: of the xl.meta in each; 0: there is none, or it is not looked at.
    """
    written_by = header.engine_version if header else ""
    if archive_version and server_version > archive_version:
        return (
            f"Written by MinIO {written_by or 'of an older release'}, goes into {facts.version}: its objects are of "
            f"version {archive_version}, which this server reads and writes anew as {server_version} when they change."
        )
    if written_by and written_by != facts.version:
        return f"Written by MinIO {written_by}, goes into {facts.version}: both keep objects in the same way."
    return ""


def swap_seconds(now: Tally, after: Tally, *, only: str) -> float:
    """How long clients wait or are refused: the freeze, and MinIO's restart where there is one.

    Directories of buckets are renamed, so it grows with buckets and accounts, and not with objects.
    """
    if only:
        return _FREEZE_SECONDS
    buckets = len(now.buckets.keys() | after.buckets.keys())
    accounts = sum(met.added + met.changed + met.same for kind, met in now.changes.items() if kind in ACCOUNTS)
    return _FREEZE_SECONDS + buckets / _BUCKETS_A_SECOND + _RESTART_SECONDS + accounts / _ACCOUNTS_A_SECOND


def changes(now: Tally, after: Tally, *, keeps_users: bool) -> tuple[str, ...]:
    """Sentences about what an import would change."""
    found = []
    both = sorted(now.buckets.keys() & after.buckets.keys())
    for text, names in (
        ("comes", sorted(after.buckets.keys() - now.buckets.keys())),
        ("goes", sorted(now.buckets.keys() - after.buckets.keys())),
    ):
        side = after if text == "comes" else now
        found += [f"Bucket {name} {text}, with {side.buckets[name].versions} versions." for name in names]
    for name in both:
        old, new = now.buckets[name], after.buckets[name]
        if old.fingerprint != new.fingerprint or not now.is_complete:
            found.append(f"Bucket {name} changes: {old.versions} versions become {new.versions}.")
        if old.settings != new.settings and now.is_complete:
            found.append(f"The settings of bucket {name} change: versioning, locks, policy, rules or tags.")
    if not found:
        found.append("All buckets hold the same versions as now, with the same settings.")
    found.append(
        "Users, policies and the server's configuration stay as they are."
        if keeps_users
        else "Users, policies, service accounts and the server's configuration become the archive's."
    )
    return tuple(found)


def warnings(header: ArchiveHeader | None, tally: Tally, *, only: str) -> tuple[str, ...]:
    """What a person should know before an import."""
    found = []
    if not only:
        found.append("MinIO restarts itself: calls fail for about a second, and uploads on their way are cut off.")
    if tally.expiring:
        found.append(expiring(tally.expiring))
    found += tiers.about_sharing(tally.tiered)
    if tally.damaged:
        found.append(
            f"{tally.damaged} versions were damaged when they were exported: {', '.join(tally.damaged_names)}."
        )
    if bare := sorted(name for name, bucket in tally.buckets.items() if bucket.settings == bucket_settings.NONE):
        found.append(
            f"The archive holds no settings of {some_of(bare, _NAMED)}: versioning, locks, policies and rules that "
            "were set there do not come."
        )
    if replicated := _without_replication(header, tally):
        found.append(
            f"The remote targets and replication rules of {some_of(replicated, _NAMED)} are not in the archive: after "
            "the import nothing is replicated until they are set up anew."
        )
    if tally.unproven:
        found.append(contents.unproven_text(tally.unproven))
    if told := contents.unproven_own_text(sealed=0, others=tally.own_unproven):
        found.append(told)
    if nested := tally.total("nested"):
        told = counted(nested, "objects lie", "object lies")
        found.append(f"{told} below other objects; they are imported, and no listing shows them.")
    return tuple(found)


def _without_replication(header: ArchiveHeader | None, tally: Tally) -> list[str]:
    """Buckets whose replication an export has left out."""
    if header is None or header.details.get("secrets") != "left-out":
        return []
    if told := header.details.get("without_replication"):
        return sorted({*told.split(", ")} & tally.buckets.keys())
    # Of before exports said it; some of these have had no targets.
    return sorted(name for name, bucket in tally.buckets.items() if bucket.settings == bucket_settings.WITH_KEYS)


def is_of(header: ArchiveHeader | None, facts: Facts) -> bool:
    """Whether an archive is of this very server."""
    return header is not None and header.details.get("deployment_id") == facts.deployment_id


def replicating(header: ArchiveHeader | None, tally: Tally, facts: Facts) -> tuple[str, ...]:
    """About buckets that are going to replicate from here as well; empty for an archive of this very server."""
    if is_of(header, facts):
        return ()
    return tuple(
        f"{name} is replicated to {', '.join(targets)} from here too, once it is imported: what is written and deleted "
        "here is so there, beside what the server of the archive does. Unless this one takes its place, import an "
        "export with `secrets=left-out`, which leaves out remote targets and their rules, and users."
        for name, targets in sorted(tally.replicating.items())[:_NAMED]
    )


def about_root(now: Tally, *, root: str, previous_root: str) -> tuple[str, ...]:
    """Whose the archive's service accounts of root are going to be; empty where that goes without saying.

    Args:
        now: compared with what is staged; without service accounts of one bucket alone, or where users stay.
        previous_root: of the archive's server; empty: nobody says.
    """
    met = now.changes.get("service_accounts", Changes())
    if previous_root == root or not met.added + met.changed + met.same:
        return ()
    if previous_root:
        return ("The service accounts of the other server's root become this root's.",)
    return (
        "The archive does not say what root was called on its server. If that was another name than here, root's "
        "service accounts have no rights after the import; import with `root=` and that name, and they become this "
        "root's.",
    )


def hidden(count: int, names: Sequence[str]) -> str:
    """A warning about objects below other objects that a portable archive brings.

    Args:
        names: some of them, with their buckets.
    """
    told = counted(count, "objects lie", "object lies")
    return (
        f"{told} below other objects: {', '.join(map(printable, names[:5]))}. They are imported and can be read by "
        "their names, and no listing shows them; a portable export of this server leaves them out."
    )


def expiring(buckets: Sequence[str]) -> str:
    """A warning about buckets with rules that delete objects by their age."""
    return (
        f"The buckets {some_of(buckets, _NAMED)} delete objects by their age, which is that of the originals: MinIO's "
        "scanner may delete what was just imported."
    )
