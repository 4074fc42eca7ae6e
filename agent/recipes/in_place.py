"""Whose data an app has, as an import's record says it: for when what the import keeps, which would say it, is gone.

That it is gone is no proof that an undo was done and cleared up after itself: somebody may have removed it before.
"""

from __future__ import annotations

from agent.engines.swapping import Side
from agent.recipes.base import Record, note_done
from common.errors import InternalError


def begin(record: Record, target: Side, **facts: bool) -> None:
    """Note before a swap whose data is in place, with other facts; raises as `Record.save`."""
    record.save(in_place=target.other.value, **facts)


def leave_open(record: Record, **facts: bool) -> None:
    """Note right before the exchange that only what the import keeps says it from now on; as `begin`."""
    record.save(in_place="", **facts)


def settle(record: Record, side: Side, **facts: bool) -> None:
    """Note whose data is in place for certain, with other facts."""
    note_done(record, in_place=side.value, **facts)


def noted(record: Record) -> Side:
    """Whose data is in place, where nothing else tells.

    Raises:
        InternalError: an exchange was begun and not noted as done.
    """
    # An older agent noted nothing.
    if side := record.facts.get("in_place", Side.PREVIOUS.value):
        return Side(side)
    raise InternalError(
        f"An exchange of the app's data was interrupted, and what import {record.key} keeps beside it is not there: "
        "nobody can tell how far it came."
    )
