"""A tree counted by a jailed child: see census_child.py."""

from __future__ import annotations

from pathlib import Path

from agent.engines.minio.trees.census_child import Request
from agent.engines.minio.trees.questions import ask
from agent.engines.minio.trees.tally import Tally


async def count_in_jail(
    directory: Path,
    *,
    seconds: float | None = None,
    only: str = "",
    beside: Path | None = None,
    proves: bool = False,
) -> Tally:
    """Go through a tree, as `census.count`.

    Args:
        beside: another tree below the directory, to compare it with.
        proves: read the contents too, with their sums.
    Raises:
        As `questions.ask`.
    """
    request = Request(
        seconds=seconds,
        only=only,
        beside=str(beside.relative_to(directory)) if beside else "",
        proves=proves,
    )
    return await ask("agent.engines.minio.trees.census_child", directory, request, Tally)
