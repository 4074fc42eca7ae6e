"""The last finished transfers, for callers who ask again."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec
import structlog

from agent.states import TransferState
from common.files import write_atomically

_log = structlog.get_logger(__name__)


class History:
    """One file; losing it costs an answer to a repeated call, no data."""

    LIMIT = 100

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[TransferState]:
        """Oldest first; empty when there is no file or it cannot be used."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=list[TransferState])
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as failure:
            _log.warning(
                "The list of finished transfers cannot be read; a new one is begun.",
                action="read_history",
                error=str(failure),
            )
            return []

    def write(self, states: Iterable[TransferState]) -> None:
        """Replace it; a failure is logged, since no transfer should fail for its entry in a list."""
        try:
            write_atomically(self._path, msgspec.json.encode(list(states)[-self.LIMIT :]))
        except OSError as failure:
            _log.warning("The list of transfers was not written.", action="write_history", error=str(failure))
