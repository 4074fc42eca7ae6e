"""Time as a parameter: what expires asks a clock, so that no test has to wait."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

Clock = Callable[[], dt.datetime]
"""The moment, aware and in UTC."""


def utc_now() -> dt.datetime:
    """The machine's."""
    return dt.datetime.now(dt.UTC)
