"""What is written down about an import and its swap, in the order in which it is done; what `recovery` goes by.

This is version 2 of it. Version 1 had the way alone that began last (`aim`, `reached`, `run_id`, `may_evict`,
`begun_at`), and what it left out cannot be found again. At rest the two say the same.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from agent.engines.redis.fitting import Needs
from agent.engines.redis.lending import Note
from agent.engines.redis.marker import LIFETIME_SECONDS
from agent.engines.redis.snapshots import Snapshot

_AIM_1, _REACHED_1 = "aim", "reached"


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
    """How far one way of a swap came for certain, in this order."""

    BEGUN = "begun"
    SENT = "sent"
    """The last bytes are on their way: from now on the server may load it."""
    LOADED = "loaded"
    """The server said so; commands that follow may not be executed yet."""
    SEEN = "seen"
    """The marker was read in it; the server may evict it afterwards."""


class Way(msgspec.Struct, frozen=True):
    """One way of a swap: there or back. A restore that fails at its end goes both; what is known of each stays.

    Attributes:
        run_id: of the server when it began; that one has another when it was restarted.
        may_evict: whether that server was one that drops keys when its memory is full.
        drops_data: whether it was one that drops what it has before it loads, and had something.
        keeps_nothing: whether it was one that comes back from a restart with nothing, as far as that was noted.
        begun_at: Unix seconds, by the machine's clock, as is what follows.
        paused_until: when the pause of writes ends that there was when it was sent, or loaded; 0: not known.
    """

    run_id: str
    may_evict: bool
    drops_data: bool
    begun_at: int
    reached: Reached = Reached.BEGUN
    paused_until: float = 0.0
    keeps_nothing: bool = False

    @property
    def may_be_loaded(self) -> bool:
        """Whether everything was sent that the server needs for it."""
        return self.reached is not Reached.BEGUN

    @property
    def has_outlived_marker(self) -> bool:
        """Whether it began so long ago that a marker would not be there any more."""
        return time.time() - self.begun_at > LIFETIME_SECONDS

    @property
    def is_paused_still(self) -> bool:
        """Whether nobody can have written since it was loaded, unless the pause was ended by hand."""
        return time.time() < self.paused_until


class SwapRecord:
    """A record, typed. It is also where the server's settings that have to be put back are noted."""

    def __init__(self, record: Record, directory: Path) -> None:
        """
        Args:
            directory: of the agent's own, where the files are.
        """
        self._record = record
        self.directory = directory
        self.key = record.key

    @property
    def staged_path(self) -> Path:
        return self.directory / f"{self.key}.staged.rdb"

    @property
    def previous_path(self) -> Path:
        return self.directory / f"{self.key}.previous.rdb"

    @property
    def tail_path(self) -> Path:
        """Commands that follow the previous snapshot."""
        return self.directory / f"{self.key}.previous.commands"

    @property
    def staged(self) -> Snapshot | None:
        return Snapshot.from_fact(self.staged_path, self._record.facts.get("staged"))

    @property
    def previous(self) -> Snapshot | None:
        return Snapshot.from_fact(self.previous_path, self._record.facts.get("previous"))

    def save_staged(self, snapshot: Snapshot, needs: Needs | None = None) -> None:
        self._record.save(staged=snapshot.to_fact(), staged_needs=_packed(needs))

    def save_previous(self, snapshot: Snapshot, needs: Needs | None = None) -> None:
        """Both files of it are complete and durable."""
        self._record.save(previous=snapshot.to_fact(), previous_needs=_packed(needs))

    def needs(self, aim: Aim) -> Needs | None:
        """What that data needs of a server; None: an older agent did not note it."""
        text = self._text("staged_needs" if aim is Aim.IMPORTED else "previous_needs")
        return msgspec.json.decode(text, type=Needs) if text else None

    @property
    def is_undo(self) -> bool:
        """The swap in question takes back an import that was complete."""
        return self._text("operation") == "undo"

    @property
    def is_of_version_1(self) -> bool:
        """An older agent began this operation: its ways are less than what `Way` says."""
        return bool(self._text(_AIM_1))

    def open(self, *, is_undo: bool) -> None:
        """A restore or an undo begins."""
        cleared = dict.fromkeys((*(_way(aim) for aim in Aim), "settled", "lost_in"), "")
        if self.is_of_version_1:
            cleared[_AIM_1] = ""
        if is_undo:
            self._record.save(operation="undo", **cleared)
        else:
            # What an attempt that failed has copied is of that day.
            self._record.save(operation="restore", previous="", **cleared)

    @property
    def forth(self) -> Way | None:
        """To the imported data; None: not begun by this operation."""
        return self._read_way(Aim.IMPORTED)

    @property
    def back(self) -> Way | None:
        """To the previous data; None: not begun by this operation."""
        return self._read_way(Aim.PREVIOUS)

    @property
    def aim(self) -> Aim | None:
        """Of the way that began last; None: nothing was done in the server yet."""
        if self.back is not None:
            return Aim.PREVIOUS
        return Aim.IMPORTED if self.forth is not None else None

    @property
    def way(self) -> Way | None:
        """The one that began last."""
        return self.back or self.forth

    @property
    def is_taking_back(self) -> bool:
        """A restore is on its way back."""
        return not self.is_undo and self.back is not None

    def begin(self, aim: Aim, *, run_id: str, may_evict: bool, drops_data: bool, keeps_nothing: bool) -> None:
        """One way of the swap begins, or begins again."""
        before = self._read_way(aim)
        is_half = before is not None and before.run_id == run_id and before.reached is Reached.LOADED
        way = Way(
            run_id=run_id,
            may_evict=may_evict,
            drops_data=drops_data,
            keeps_nothing=keeps_nothing,
            begun_at=int(time.time()),
            # What is there is known as long as nothing else was sent.
            reached=Reached.LOADED if is_half else Reached.BEGUN,
            paused_until=before.paused_until if before is not None and is_half else 0.0,
        )
        self._save_way(aim, way)

    def reach(self, reached: Reached, *, paused_until: float | None = None) -> None:
        """The way that began last came so far.

        Args:
            paused_until: see Way; None: as it was.
        """
        if self.aim is None or self.way is None:
            raise RuntimeError("no way has begun")
        until = self.way.paused_until if paused_until is None else paused_until
        self._save_way(self.aim, msgspec.structs.replace(self.way, reached=reached, paused_until=until))

    @property
    def settled(self) -> Aim | None:
        """Which data the server has for good; None: that is not so yet."""
        text = self._text("settled")
        if not text and self._text(_REACHED_1) == "durable":
            text = self._text(_AIM_1)
        return Aim(text) if text else None

    def save_settled(self, aim: Aim) -> None:
        """The server has that data, and its own files hold it."""
        self._record.save(settled=aim.value)

    @property
    def lost_in(self) -> str:
        """The run of the server in which it was seen to hold nothing at all, in the middle of this; empty: none."""
        return self._text("lost_in")

    def save_lost(self, run_id: str) -> None:
        self._record.save(lost_in=run_id)

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

    def _read_way(self, aim: Aim) -> Way | None:
        if text := self._text(_way(aim)):
            return msgspec.json.decode(text, type=Way)
        return self._read_way_1() if self._text(_AIM_1) == aim.value else None

    def _read_way_1(self) -> Way:
        """Where version 1 is not sure, what makes nobody sure."""
        return Way(
            run_id=self._text("run_id"),
            may_evict=True,
            drops_data=True,
            begun_at=int(self._text("begun_at") or 0),
            reached=Reached.SENT,
            keeps_nothing=True,
        )

    def _save_way(self, aim: Aim, way: Way) -> None:
        self._record.save(**{_way(aim): msgspec.json.encode(way).decode()})

    def _text(self, name: str) -> str:
        value = self._record.facts.get(name)
        return value if isinstance(value, str) else ""


def _packed(needs: Needs | None) -> str:
    return msgspec.json.encode(needs).decode() if needs else ""


def _way(aim: Aim) -> str:
    return f"way_to_{aim.value}"
