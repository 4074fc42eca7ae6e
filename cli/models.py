"""The controller's answers as values, and the shapes that `--json` prints.

Field names and meanings are those of protos/mathison/data/v1; whatever is absent or null reads as "not known".
"""

from __future__ import annotations

import datetime as dt

import msgspec

from common.errors import AgentUnavailableError, say_unchanged
from common.headers import ArchiveHeader


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a transfer is; see Progress in transfer.proto."""

    phase: str | None = None
    read_bytes: int = 0
    sent_bytes: int = 0
    total_bytes: int = 0
    rate_bytes_per_second: int = 0
    note: str = ""


class Fingerprint(msgspec.Struct, frozen=True, kw_only=True):
    """What some content is; equal for equal content."""

    scheme: str = ""
    sha256: str = ""
    parts: dict[str, str] = {}


class AppFingerprint(msgspec.Struct, frozen=True, kw_only=True):
    """What an app's content was at a moment."""

    app_id: str
    fingerprint: Fingerprint
    taken_at: dt.datetime | None = None


class End(msgspec.Struct, frozen=True, kw_only=True):
    """What was transferred, known once it was all there."""

    size_bytes: int = 0
    sha256: str = ""
    counts: dict[str, int] = {}
    warnings: tuple[str, ...] = ()
    fingerprint: Fingerprint | None = None


class ItemChanges(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of one kind of thing, such as tables, in an import."""

    added: int = 0
    removed: int = 0
    changed: int = 0
    same: int = 0
    not_compared: int = 0


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """What an import would change."""

    changes: tuple[str, ...] = ()
    counts_now: dict[str, int] = {}
    counts_after: dict[str, int] = {}
    needs_app_stop: bool = False
    warnings: tuple[str, ...] = ()
    items: dict[str, ItemChanges] = {}
    bridging: str = ""
    room_bytes: int = 0
    swap_seconds: int = 0
    import_seconds: int = 0


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a transfer failed."""

    reason: str = ""
    message: str = ""
    next_step: str = ""


class TransferState(msgspec.Struct, frozen=True, kw_only=True):
    """Everything known of one transfer; `result` is "succeeded", "failed", "cancelled", or None while it runs."""

    transfer_id: str
    app_id: str = ""
    kind: str | None = None
    progress: Progress | None = None
    result: str | None = None
    end: End | None = None
    error: Failure | None = None
    started_at: dt.datetime | None = None
    ended_at: dt.datetime | None = None
    preview: Preview | None = None
    kept_until: dt.datetime | None = None
    undone: bool = False
    header: ArchiveHeader | None = None

    @property
    def phase(self) -> str:
        return (self.progress.phase if self.progress else None) or ""


class FormatDescription(msgspec.Struct, frozen=True, kw_only=True):
    """A format that an export can have."""

    name: str
    media_type: str = ""
    suffix: str = ""
    description: str = ""


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """What an app's agent says about it; see DescribeResponse in agent.proto."""

    data_export_description: str = ""
    engine: str = ""
    engine_version: str = ""
    export_formats: tuple[FormatDescription, ...] = ()
    import_formats: tuple[str, ...] = ()
    can_export: bool = False
    export_obstacle: str = ""
    can_import: bool = False
    import_obstacle: str = ""
    estimated_bytes: int = 0
    import_needs_app_stop: bool = False
    can_undo: bool = False
    warnings: tuple[str, ...] = ()
    running: TransferState | None = None
    kept: TransferState | None = None
    details: dict[str, str] = {}
    agent_version: str = ""
    agent_started_at: dt.datetime | None = None


class App(msgspec.Struct, frozen=True, kw_only=True):
    """One app; `description` is None where its agent does not answer."""

    id: str
    workspace: str = ""
    name: str = ""
    recipe: str = ""
    is_available: bool = False
    obstacle: str = ""
    description: Description | None = None

    def described(self) -> Description:
        """The description; AgentUnavailableError, which says that nothing was changed, where there is none."""
        if self.description is None:
            missing = AgentUnavailableError(self.obstacle or f"The agent of {self.id} does not answer.")
            say_unchanged(missing)
            raise missing
        return self.description


class AppList(msgspec.Struct, frozen=True):
    deployments: tuple[App, ...]


class TransferList(msgspec.Struct, frozen=True):
    transfers: tuple[TransferState, ...]


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """An error answer, RFC 9457 with our reasons."""

    title: str = ""
    detail: str = ""
    reason: str = ""
    next_step: str = ""
