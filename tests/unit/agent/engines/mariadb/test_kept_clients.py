"""Clients that are kept: one that does not answer any more is followed by another."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.engines.mariadb.server.kept_clients import KeptClients
from agent.engines.mariadb.server.settings import Login
from agent.processes import Command
from common.errors import ToolFailedError

LOGIN = Login("127.0.0.1", 3306, "shop", "", Path("/usr/bin"))
TWICE = """
for answer in 1 2; do
  read -r statement
  read -r mark
  echo "$mark" | sed "s/^SELECT '\\(.*\\)';$/\\1/"
done
"""
"""Has a shell answer as a client does: to a beginning and to a question, behind each of which a row is asked for."""


@pytest.mark.parametrize("ending", ["cat > /dev/null", "exit 1", "read -r next; echo something; cat > /dev/null"])
async def test_a_client_that_is_not_ready_any_more_is_followed_by_another(ending: str, tmp_path: Path) -> None:
    command = Command(["sh", "-c", f"echo started >> {tmp_path}/starts; {TWICE} {ending}"])
    clients = KeptClients()

    for _ in range(2):
        answer = await clients.ask(LOGIN, command, beginning="SET;", question=b"ASK;", within_seconds=0.5)
        assert answer == b""

    await clients.close()
    assert (tmp_path / "starts").read_text().split() == ["started", "started"]


async def test_a_client_that_ends_without_an_answer_has_failed() -> None:
    clients = KeptClients()

    with pytest.raises(ToolFailedError, match=r"^sh ended before it had answered\.$"):
        await clients.ask(
            LOGIN, Command(["sh", "-c", "read -r statement"]), beginning="", question=b"", within_seconds=1
        )
