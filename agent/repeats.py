"""An id that is used again: for the same transfer, or by mistake for another one.

A caller whose answer was lost asks again under the same id and must not import twice. Whoever uses an id for anything
else must not read that it succeeded, so what a transfer was asked to be is kept with its state, and compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import aclosing

import msgspec

from agent.states import Kind, Result, TransferState
from common.errors import InvalidRequestError
from common.frames import FrameReceiver, IncomingFrame

_ANOTHER_ID = "Choose another id."


def order_of(kind: Kind, options: Mapping[str, str], *, format: str = "", dry_run: bool = False) -> str:
    """What a transfer is asked to be, as a digest: an option's value may be nobody's business."""
    order = [kind.value, format, dry_run, sorted(options.items())]
    return hashlib.sha256(msgspec.json.encode(order)).hexdigest()


def is_spent(state: TransferState, *, is_staged: bool) -> bool:
    """Whether an id stands for what was done under it; that of a transfer which came to nothing is free again."""
    return is_staged or state.result is Result.SUCCEEDED


def check_order(known: TransferState, order: str) -> None:
    """Raises InvalidRequestError unless the same is asked for again."""
    if known.order != order:
        what = "a dry run" if known.is_done_dry_run else f"an {known.kind.value}"
        raise InvalidRequestError(
            f"The id {known.transfer_id} was used before, for {what} that was asked for differently. "
            "Nothing was changed.",
            next_step=_ANOTHER_ID,
        )


def check_still_there(known: TransferState, others: Iterable[TransferState]) -> None:
    """Raises InvalidRequestError for an import whose data is not the app's any more."""
    if not known.is_done_import:
        return
    if known.undone:
        raise InvalidRequestError(
            f"The id {known.transfer_id} was used before, for an import that was undone. Nothing was changed.",
            next_step=_ANOTHER_ID,
        )
    for other in others:
        if other.is_done_import and not other.undone and other.place > known.place:
            raise InvalidRequestError(
                f"The id {known.transfer_id} was used before, for an import that {other.transfer_id} has replaced "
                "since. Nothing was changed.",
                next_step=_ANOTHER_ID,
            )


async def check_upload(known: TransferState, frames: AsyncIterator[IncomingFrame], *, limit_bytes: int) -> None:
    """Read an upload to its end, keeping nothing of it.

    Raises:
        InvalidRequestError: it is another file than the one that was imported.
        UploadIncompleteError, DigestMismatchError, LimitExceededError: as FrameReceiver.
    """
    receiver = FrameReceiver(frames, limit_bytes=limit_bytes)
    await receiver.open()
    async with aclosing(receiver.chunks()) as chunks:
        async for _ in chunks:
            pass
    then, now = known.receipt, receiver.receipt
    if then is None or now is None or (then.size_bytes, then.sha256) != (now.size_bytes, now.sha256):
        sha256 = then.sha256 if then is not None else "not known"
        raise InvalidRequestError(
            f"The id {known.transfer_id} was used before, for another file (SHA-256 {sha256}). This one was not "
            "imported; nothing was changed.",
            next_step=_ANOTHER_ID,
        )
