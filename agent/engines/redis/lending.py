"""Settings of a server that are changed for a moment and put back, whatever dies in between.

What they were is written down before they are changed, with the server's run id: a server that was restarted has read
its own configuration again, and nothing is put back into that.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from agent.engines.redis.connection import Connection, NotAllowedError, ReplyError
from agent.engines.redis.facts import read_setting
from common.errors import ToolFailedError
from common.files import remove_unfinished, write_atomically

_CONFIG = ("CONFIG", "SET")


class Note(msgspec.Struct, frozen=True):
    """What has to be put back, and into which run of the server. Never a secret."""

    run_id: str
    before: dict[str, str]


class Ledger(Protocol):
    """Where a note is kept, durably."""

    def read(self) -> Note | None: ...
    def write(self, note: Note | None) -> None: ...


class FileLedger:
    """A file of the agent's own."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Note | None:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Note)
        except (FileNotFoundError, ValueError):
            return None

    def write(self, note: Note | None) -> None:
        if note is None:
            self._path.unlink(missing_ok=True)
            remove_unfinished(self._path)
        else:
            write_atomically(self._path, msgspec.json.encode(note))


class Loan:
    """Settings of one run of a server, as long as they are changed."""

    def __init__(self, ledger: Ledger, run_id: str) -> None:
        self._ledger = ledger
        self._run_id = run_id
        self._before: dict[str, str] = {}

    async def change(self, connection: Connection, wanted: Mapping[str, str]) -> frozenset[str]:
        """Change settings.

        Returns:
            Those that have the wanted value now. The others the server does not know, or does not let us change.
        """
        reached = set()
        to_change = {}
        for name, value in wanted.items():
            current = await read_setting(connection, name)
            if current == value:
                reached.add(name)
            elif current is not None:
                to_change[name] = value
                self._before.setdefault(name, current)
        if to_change:
            self._ledger.write(Note(self._run_id, self._before))
        for name, value in to_change.items():
            try:
                await connection.call(*_CONFIG, name, value)
                reached.add(name)
            except (ReplyError, NotAllowedError):
                del self._before[name]
        if to_change.keys() - reached:
            self._ledger.write(Note(self._run_id, self._before) if self._before else None)
        return frozenset(reached)

    async def give_back(self, connection: Connection) -> None:
        """Put back what `change` changed. May be called twice."""
        if self._before:
            await put_back(connection, Note(self._run_id, self._before), run_id=self._run_id)
            self._before = {}
            self._ledger.write(None)


async def put_back(connection: Connection, note: Note, *, run_id: str) -> None:
    """Put back what a note says.

    Args:
        run_id: of the server as it runs now.
    Raises:
        ToolFailedError: the server does not take a value back.
    """
    if note.run_id != run_id:
        return
    for name, value in note.before.items():
        try:
            await connection.call(*_CONFIG, name, value)
        except ReplyError as error:
            raise ToolFailedError(
                f"The server's setting {name} could not be put back to {value!r}: {error.text}.",
                next_step=f"Set it by hand: CONFIG SET {name} {value!r}",
            ) from error
