"""What is written down about an import and its swap, in the order in which it is done; what `recovery` goes by."""

from __future__ import annotations

import enum
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from agent.engines.redis.lending import Note
from agent.engines.redis.marker import LIFETIME_SECONDS
from agent.engines.redis.snapshots import Snapshot


class Record(Protocol):
    """The journal's line of one import; see recipes.base.Record."""

    @property
    def key(self) -> str: ...

    @property
    def facts(self) -> Mapping[str, object]: ...

    def save(self, **facts: str) -> None: ...


class Aim(enum.Enum):
    """Which data the server is to have."""

    IMPORTED = "imported"
    PREVIOUS = "previous"


class Reached(enum.Enum):
    """How far a swap came for certain, in this order."""

    NOTHING = ""
    BEGUN = "begun"
    SENT = "sent"
    """The last bytes are on their way: from now on the server may load it."""
    LOADED = "loaded"
    """The server said so; commands that follow may not be executed yet."""
    SEEN = "seen"
    """The marker was read in it; the server may evict it afterwards."""
    DURABLE = "durable"


class SwapRecord:
    """A record, typed. It is also where the server's settings that have to be put back are noted."""

    def __init__(self, record: Record, directory: Path) -> None:
        """
        Args:
            directory: of the agent's own, where the files are.
        """
        self._record = record
        self._directory = directory
        self.key = record.key

    @property
    def staged_path(self) -> Path:
        return self._directory / f"{self.key}.staged.rdb"

    @property
    def previous_path(self) -> Path:
        return self._directory / f"{self.key}.previous.rdb"

    @property
    def tail_path(self) -> Path:
        """Commands that follow the previous snapshot."""
        return self._directory / f"{self.key}.previous.commands"

    @property
    def staged(self) -> Snapshot | None:
        return Snapshot.from_fact(self.staged_path, self._record.facts.get("staged"))

    @property
    def previous(self) -> Snapshot | None:
        return Snapshot.from_fact(self.previous_path, self._record.facts.get("previous"))

    def save_staged(self, snapshot: Snapshot) -> None:
        self._record.save(staged=snapshot.to_fact())

    def save_previous(self, snapshot: Snapshot) -> None:
        """Both files of it are complete and durable."""
        self._record.save(previous=snapshot.to_fact())

    @property
    def is_undo(self) -> bool:
        """The swap in question takes back an import that was complete."""
        return self._text("operation") == "undo"

    def open(self, *, is_undo: bool) -> None:
        """A restore or an undo begins."""
        if is_undo:
            self._record.save(operation="undo", aim="", reached="")
        else:
            # What an attempt that failed has copied is of that day.
            self._record.save(operation="restore", aim="", reached="", previous="")

    @property
    def aim(self) -> Aim | None:
        text = self._text("aim")
        return Aim(text) if text else None

    @property
    def reached(self) -> Reached:
        return Reached(self._text("reached"))

    @property
    def run_id(self) -> str:
        """Of the server when the swap began; it has another one when it was restarted."""
        return self._text("run_id")

    @property
    def may_evict(self) -> bool:
        """Whether that server, when the swap began, was one that drops keys when its memory is full."""
        return self._text("may_evict") == "yes"

    def begin(self, aim: Aim, *, run_id: str, may_evict: bool) -> None:
        """One way of the swap begins; a restore that fails at its end goes both."""
        self._record.save(
            aim=aim.value,
            reached=Reached.BEGUN.value,
            run_id=run_id,
            may_evict="yes" if may_evict else "no",
            begun_at=str(int(time.time())),
        )

    @property
    def has_outlived_marker(self) -> bool:
        """Whether it began so long ago, by the machine's clock, that a marker would not be there any more."""
        return time.time() - int(self._text("begun_at") or 0) > LIFETIME_SECONDS

    def reach(self, reached: Reached) -> None:
        self._record.save(reached=reached.value)

    @property
    def agent_at(self) -> tuple[str, int] | None:
        """What the server is told to copy."""
        host, _, port = self._text("agent_at").rpartition(" ")
        return (host, int(port)) if host else None

    def save_agent_at(self, host: str, port: int) -> None:
        self._record.save(agent_at=f"{host} {port}")

    def forget_agent_at(self) -> None:
        """The server copies nobody any more."""
        if self.agent_at is not None:
            self._record.save(agent_at="")

    def read(self) -> Note | None:
        """Settings of the server to be put back; see lending.Ledger."""
        text = self._text("lent")
        return msgspec.json.decode(text, type=Note) if text else None

    def write(self, note: Note | None) -> None:
        self._record.save(lent=msgspec.json.encode(note).decode() if note else "")

    def remove_files(self, *, staged: bool = True, previous: bool = True) -> None:
        """Drop what is not needed any more."""
        if staged:
            self.staged_path.unlink(missing_ok=True)
        if previous:
            self.previous_path.unlink(missing_ok=True)
            self.tail_path.unlink(missing_ok=True)

    def _text(self, name: str) -> str:
        value = self._record.facts.get(name)
        return value if isinstance(value, str) else ""
