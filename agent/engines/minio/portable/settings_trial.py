"""Settings of buckets given to a server, and the ones of a portable archive tried before anything of it is imported.

They are tried on an empty bucket made for the purpose, which clients may see for some moments. Whether a server takes
them depends on what is set up there: targets for notifications, tiers, a KMS.
"""

from __future__ import annotations

import fnmatch
import io
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent.archives.members import printable
from agent.engines.minio.portable.tree import settings_left_out, settings_of
from agent.engines.minio.server.client import Client
from common.errors import ArchiveIncompatibleError
from common.wording import some_of

NEXT_STEP = (
    "Set up on this server what they need (targets of notifications, tiers, a KMS), or import with `settings=drop`, "
    "which leaves out the ones that it does not take."
)
_POLICY_FILE = "policy.json"
_MOST_POLICY_BYTES = 20 << 10
"""MinIO's limit."""
_RESOURCE_BUCKET = re.compile(rb'(?<=arn:aws:s3:::)[^"/\\]+')
_NOT_WELL_FORMED = "did not validate against our published schema. ("
"""What MinIO also says of XML that is well-formed and speaks of what it does not have; the reason follows."""
_NAMED = 20
_SAID_CHARS = 300


@dataclass(frozen=True)
class Told:
    """What a server says of one of the settings it was given.

    Attributes:
        name: its own word for it, for example "sse".
        said: why it does not take it; empty: it does.
    """

    bucket: str
    name: str
    said: str


@dataclass
class Trial:
    """What came of it.

    Attributes:
        refused: what the server says, by the path below `settings/`.
        unknown: paths of what no server is given, or this one does not know.
    """

    refused: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    def require_taken(self) -> None:
        """Raises ArchiveIncompatibleError when the server refused some."""
        if self.refused:
            raise not_taken(self.refused)

    def warnings(self) -> list[str]:
        """What an import without these is without."""
        found = []
        if self.refused:
            found.append(f"Left out, since this server does not take them: {_listed(self.refused)}.")
        if self.unknown:
            found.append(f"Left out, since they are no settings that an import gives to MinIO: {_named(self.unknown)}.")
        return found


def not_taken(refused: Mapping[str, str]) -> ArchiveIncompatibleError:
    """The error for settings that a server refused, by path, with what it said."""
    return ArchiveIncompatibleError(
        f"This server does not take all settings of the archive's buckets: {_listed(refused)}. Nothing was changed.",
        next_step=NEXT_STEP,
    )


async def give(client: Client, files: Mapping[str, bytes]) -> list[Told]:
    """Give buckets settings; what the server says of each that it knows.

    Args:
        files: by `<bucket>/<name>`.
    """
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    report = (await client.admin("PUT", "import-bucket-metadata", body=packed.getvalue())).json()
    buckets = report.get("buckets") if isinstance(report, dict) else None
    told = []
    for bucket, found in (buckets or {}).items():
        for name, outcome in found.items() if isinstance(found, dict) else ():
            if isinstance(outcome, dict) and (outcome.get("isSet") or outcome.get("error")):
                told.append(Told(bucket, name, _reason(str(outcome.get("error") or ""))))
            elif name == "error" and outcome:
                told.append(Told(bucket, name, str(outcome)))
    return told


async def try_out(client: Client, tree: Path, names: Sequence[str], *, canary: str) -> Trial:
    """Have the server take the settings of buckets, each by itself.

    Args:
        canary: the empty bucket, which is there.
    Raises:
        AppUnavailableError, ToolFailedError: it does not answer, or not as MinIO does.
    """
    trial = Trial()
    known: dict[tuple[str, bytes], list[Told]] = {}
    for bucket in names:
        trial.unknown += [f"{bucket}/{name}" for name in settings_left_out(tree, bucket)]
        for name, content in settings_of(tree, bucket).items():
            tried = _as_of(canary, bucket, content) if name == _POLICY_FILE else content
            if name == _POLICY_FILE and len(content) <= _MOST_POLICY_BYTES < len(tried):
                continue
            if (name, tried) not in known:
                known[name, tried] = await give(client, {f"{canary}/{name}": tried})
            told = known[name, tried]
            if said := " ".join(each.said for each in told if each.said):
                trial.refused[f"{bucket}/{name}"] = said
            elif not told:
                trial.unknown.append(f"{bucket}/{name}")
    return trial


def _reason(said: str) -> str:
    _, found, reason = said.partition(_NOT_WELL_FORMED)
    return reason.removesuffix(")") if found else said


def _as_of(canary: str, bucket: str, policy: bytes) -> bytes:
    """A policy has to name its own bucket, so one that does names the other then."""

    def renamed(match: re.Match[bytes]) -> bytes:
        pattern = match[0].decode(errors="replace")
        # MinIO knows no sets of characters, and no bucket has a bracket in its name.
        is_own = "[" not in pattern and fnmatch.fnmatchcase(bucket, pattern)
        return canary.encode() if is_own else match[0]

    return _RESOURCE_BUCKET.sub(renamed, policy)


def _listed(refused: Mapping[str, str]) -> str:
    told = [f"{printable(path)} ({said[:_SAID_CHARS]})" for path, said in list(refused.items())[:_NAMED]]
    more = f" and {len(refused) - _NAMED:,} more" if len(refused) > _NAMED else ""
    return "; ".join(told) + more


def _named(paths: Sequence[str]) -> str:
    return some_of([printable(path) for path in paths], _NAMED)
