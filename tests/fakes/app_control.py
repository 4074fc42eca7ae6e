"""An app that cannot be stopped from here."""

from __future__ import annotations


class NoApp:
    """Implements recipes.base.AppControl."""

    @property
    def is_possible(self) -> bool:
        return False

    async def stop(self) -> None:
        raise AssertionError("nobody should ask")

    async def start(self) -> None:
        raise AssertionError("nobody should ask")
