"""Whether all that a server has copied since it started was an agent's: its snapshot file is from none of it then.

The agent's copies are loaded without a file. Another server's are not, as a rule: what was a replica and is a master
now has that one's data in its file, and comes back with it. INFO says how many bytes came, not from whom.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import structlog

from agent.engines.redis.facts import ServerFacts
from common.errors import ServiceError
from common.files import remove_unfinished, write_atomically

_FILE = "copied-by-server.json"
_log = structlog.get_logger(__name__)


class _Note(msgspec.Struct, frozen=True):
    """
    Attributes:
        run_id: of the server.
        input_bytes: what it had copied in this run when it was let go; nobody else's are among them.
    """

    run_id: str
    input_bytes: str


def note_copied(work_directory: Path, server: ServerFacts) -> None:
    """A server that kept nothing has copied us and is a master again.

    Where that cannot be noted, it counts as one that may have a file.
    """
    path = work_directory / _FILE
    try:
        remove_unfinished(path)
        write_atomically(path, msgspec.json.encode(_of(server)))
    except (OSError, ServiceError) as failure:
        _log.warning("What a server has copied could not be noted.", action="note_copied", error=str(failure))


def has_copied_us_alone(work_directory: Path, server: ServerFacts) -> bool:
    """Whether that is known."""
    try:
        return msgspec.json.decode((work_directory / _FILE).read_bytes(), type=_Note) == _of(server)
    except (OSError, ValueError):
        return False


def _of(server: ServerFacts) -> _Note:
    return _Note(server.run_id, server.raw.get("total_net_repl_input_bytes", ""))
