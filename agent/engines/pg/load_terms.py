"""How a dump is loaded where its loader's role owns more than an empty database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Terms:
    """What `load` does beside sending a dump's statements.

    Attributes:
        is_restricted: statements that pg_dump does not write are refused, see `restricted`.
        is_check: nothing is sent anywhere; the file is read and judged to its end.
        before: statements of ours that run first. With them, all runs in one session and one transaction, which is
            committed only after everything.
        after: statements of ours that run last; what they raise ends the import as refused.
    """

    is_restricted: bool = False
    is_check: bool = False
    before: Sequence[str] = ()
    after: Sequence[str] = ()


ORDINARY = Terms()
