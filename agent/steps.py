"""How recipes and engines say what they are doing and how far they are."""

from __future__ import annotations

import enum
from typing import Protocol


class Step(enum.Enum):
    """What a transfer is doing; the wire's Phase without its framing values."""

    PREPARING = "preparing"
    TRANSFERRING = "transferring"
    VERIFYING = "verifying"
    RESTORING = "restoring"
    UNDOING = "undoing"


class Progress(Protocol):
    """Where a recipe says how far it is. Cheap: may be called for every chunk."""

    def step(self, step: Step, note: str = "") -> None:
        """Enter a step, with one sentence for a person; the same step again only changes the sentence."""

    def read(self, size_bytes: int) -> None:
        """That many more bytes were read from the app (export) or from the upload (import)."""

    def expect(self, total_bytes: int) -> None:
        """An estimate of all bytes that `read` will count; may be corrected later."""


class Unwatched:
    """Progress that nobody follows."""

    def step(self, step: Step, note: str = "") -> None:
        pass

    def read(self, size_bytes: int) -> None:
        pass

    def expect(self, total_bytes: int) -> None:
        pass
