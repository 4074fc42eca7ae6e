"""What the agent gives to a recipe, in memory: a record, progress, an upload, surroundings."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agent.recipes.base import Fact, Limits, Step, Surroundings, Upload
from common.errors import NoSpaceError
from common.headers import ArchiveHeader


@dataclass
class MemoryRecord:
    """A line of the journal that survives only as long as the test holds it."""

    transfer_id: str = "t-1"
    key: str = field(default_factory=lambda: secrets.token_hex(6))
    facts: dict[str, Fact] = field(default_factory=dict)

    def save(self, **facts: Fact) -> None:
        self.facts.update(facts)


@dataclass
class FullRecord(MemoryRecord):
    """On a disk that may be full; like the agent's own, it has in memory what it could not write."""

    is_full: bool = False

    def save(self, **facts: Fact) -> None:
        super().save(**facts)
        if self.is_full:
            raise NoSpaceError("There is no room left in the agent's state directory.")


@dataclass
class NotedProgress:
    """Progress as it was told."""

    steps: list[Step] = field(default_factory=list)
    note: str = ""
    """The last step's."""
    read_bytes: int = 0
    expected_bytes: int = 0

    def step(self, step: Step, note: str = "") -> None:
        if self.steps[-1:] != [step]:
            self.steps.append(step)
        self.note = note

    def read(self, size_bytes: int) -> None:
        self.read_bytes += size_bytes

    def expect(self, total_bytes: int) -> None:
        self.expected_bytes = total_bytes


class NoAppControl:
    """There is no way to stop the app."""

    is_possible = False

    async def stop(self) -> None:
        raise AssertionError("nobody may stop this app")

    async def start(self) -> None:
        raise AssertionError("nobody may start this app")


async def chunked(content: bytes, size_bytes: int = 1 << 20) -> AsyncIterator[bytes]:
    """Bytes as an upload brings them."""
    for start in range(0, len(content), size_bytes):
        yield content[start : start + size_bytes]


def upload_of(content: bytes, options: Mapping[str, str] | None = None) -> Upload:
    """An upload that arrives whole."""
    return Upload(header=ArchiveHeader(), chunks=chunked(content), options=options or {})


def surroundings(
    work_directory: Path, settings: Mapping[str, object], *, app_id: str = "shop.db", limits: Limits | None = None
) -> Surroundings:
    """What a recipe gets from an agent."""
    return Surroundings(
        app_id=app_id,
        work_directory=work_directory,
        limits=limits or Limits(),
        app_control=NoAppControl(),
        settings=settings,
        made_by="mathison-data test",
    )
