"""How a transfer stands: immutable values that watchers see, the journal stores and the wire carries."""

from __future__ import annotations

import datetime as dt
import enum
import math

import msgspec

from agent.recipes.base import Preview
from common.errors import ServiceError, make_error
from common.headers import ArchiveHeader, Receipt
from mathison.data.v1 import transfer_pb2 as wire


class Kind(enum.Enum):
    EXPORT = "export"
    IMPORT = "import"


class Phase(enum.Enum):
    """The wire's Phase; those that a recipe enters are `recipes.base.Step`, with the same values."""

    PREPARING = "preparing"
    TRANSFERRING = "transferring"
    VERIFYING = "verifying"
    STAGED = "staged"
    RESTORING = "restoring"
    UNDOING = "undoing"
    DONE = "done"


class Result(enum.Enum):
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Failure(msgspec.Struct, frozen=True):
    """A ServiceError as a value."""

    reason: str
    message: str
    next_step: str = ""

    @classmethod
    def of(cls, error: ServiceError) -> Failure:
        return cls(reason=error.reason, message=error.text, next_step=error.next_step)

    def to_error(self) -> ServiceError:
        return make_error(self.reason, self.message, next_step=self.next_step)


class TransferState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything known about one transfer at one moment; the fields are explained in transfer.proto."""

    transfer_id: str
    kind: Kind
    started_at: dt.datetime
    number: int = 0
    """Counts an app's transfers over restarts of its agent: what orders them, since a clock may be set back; not on the
    wire. 0: noted by an agent that did not count."""
    phase: Phase = Phase.PREPARING
    note: str = ""
    read_bytes: int = 0
    sent_bytes: int = 0
    total_bytes: int = 0
    rate_bytes_per_second: int = 0
    result: Result | None = None
    receipt: Receipt | None = None
    failure: Failure | None = None
    ended_at: dt.datetime | None = None
    preview: Preview | None = None
    needs_app_stop: bool = False
    stage_seconds: float = 0.0
    """How long building and checking took; the wire has it within `Preview.import_seconds`."""
    kept_until: dt.datetime | None = None
    undone: bool = False
    header: ArchiveHeader | None = None
    swap_failure: Failure | None = None
    """Why the last attempt to restore failed, while it is staged still; not on the wire."""
    order: str = ""
    """What was asked for, by `agent.repeats.order_of`; not on the wire."""

    @property
    def place(self) -> tuple[int, dt.datetime]:
        """Where it stands among the transfers of its app; the latest has the greatest."""
        return self.number, self.started_at

    @property
    def is_done_import(self) -> bool:
        """An import that was restored, whatever became of its previous data since."""
        return self.kind is Kind.IMPORT and self.phase is Phase.DONE and self.result is Result.SUCCEEDED

    @property
    def is_done_dry_run(self) -> bool:
        return self.phase is Phase.STAGED and self.result is Result.SUCCEEDED

    def progress_to_proto(self) -> wire.Progress:
        return wire.Progress(
            phase=_PHASES[self.phase],
            read_bytes=self.read_bytes,
            sent_bytes=self.sent_bytes,
            total_bytes=self.total_bytes,
            rate_bytes_per_second=self.rate_bytes_per_second,
            note=self.note,
        )

    def to_proto(self) -> wire.TransferState:
        message = wire.TransferState(
            transfer_id=self.transfer_id,
            kind=_KINDS[self.kind],
            progress=self.progress_to_proto(),
            result=_RESULTS[self.result],
            undone=self.undone,
        )
        message.started_at.FromDatetime(self.started_at)
        if self.ended_at is not None:
            message.ended_at.FromDatetime(self.ended_at)
        if self.kept_until is not None:
            message.kept_until.FromDatetime(self.kept_until)
        if self.receipt is not None:
            message.end.CopyFrom(self.receipt.to_proto())
        if self.failure is not None:
            message.error.reason = self.failure.reason
            message.error.message = self.failure.message
            message.error.next_step = self.failure.next_step
        if self.preview is not None:
            message.preview.CopyFrom(_preview_to_proto(self.preview))
            message.preview.needs_app_stop = self.needs_app_stop
            message.preview.import_seconds = math.ceil(self.stage_seconds + self.preview.swap_seconds)
        if self.header is not None:
            message.header.CopyFrom(self.header.to_proto())
        return message


def _preview_to_proto(preview: Preview) -> wire.Preview:
    return wire.Preview(
        changes=preview.changes,
        counts_now=preview.counts_now,
        counts_after=preview.counts_after,
        warnings=preview.warnings,
        items={
            kind: wire.ItemChanges(
                added=found.added,
                removed=found.removed,
                changed=found.changed,
                same=found.same,
                not_compared=found.not_compared,
            )
            for kind, found in preview.items.items()
        },
        bridging=preview.bridging,
        room_bytes=preview.room_bytes,
        swap_seconds=math.ceil(preview.swap_seconds),
    )


_PHASES = {
    Phase.PREPARING: wire.PHASE_PREPARING,
    Phase.TRANSFERRING: wire.PHASE_TRANSFERRING,
    Phase.VERIFYING: wire.PHASE_VERIFYING,
    Phase.STAGED: wire.PHASE_STAGED,
    Phase.RESTORING: wire.PHASE_RESTORING,
    Phase.UNDOING: wire.PHASE_UNDOING,
    Phase.DONE: wire.PHASE_DONE,
}
_KINDS = {Kind.EXPORT: wire.TRANSFER_KIND_EXPORT, Kind.IMPORT: wire.TRANSFER_KIND_IMPORT}
_RESULTS = {
    None: wire.TRANSFER_RESULT_UNSPECIFIED,
    Result.SUCCEEDED: wire.TRANSFER_RESULT_SUCCEEDED,
    Result.FAILED: wire.TRANSFER_RESULT_FAILED,
    Result.CANCELLED: wire.TRANSFER_RESULT_CANCELLED,
}
