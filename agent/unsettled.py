"""The one error of recipes and engines that is never an answer."""

from __future__ import annotations


class UnsettledError(Exception):
    """A swap failed half-way and could not be taken back, or nobody knows yet whether it was done, or it was done but
    for some clearing up. The agent settles it by the recipe's `recover` and `discard`, now and, where that is not
    possible yet, later."""
