"""A restore or undo of Uptime Kuma that kills itself at a moment.

python -m tests.integration.agent.recipes.kuma_program ACTION MOMENT DIRECTORY JOURNAL
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.engines import swapping
from agent.journal import Journal
from tests.fakes.imports import NotedProgress
from tests.fixtures.kuma_apps import KumaApp
from tests.integration.agent.recipes.conftest import NotedApp


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_at_call(target: Any, name: str, *, number: int = 1, is_before: bool = True) -> None:
    """Die before or after the given call of a function."""
    inner: Callable[..., Any] = getattr(target, name)
    calls = 0

    def wrapped(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number and is_before:
            _die()
        result = inner(*arguments, **named)
        if calls == number:
            _die()
        return result

    setattr(target, name, wrapped)


MOMENTS: dict[str, Callable[[], None]] = {
    "before the stop": lambda: _die_at_call(NotedApp, "stop"),
    "journal says out": lambda: _die_at_call(swapping, "_write", is_before=False),
    "first entry out": lambda: _die_at_call(swapping, "_move", is_before=False),
    "all out": lambda: _die_at_call(swapping, "_write", number=2),
    "journal says in": lambda: _die_at_call(swapping, "_write", number=2, is_before=False),
    "before the last entry in": lambda: _die_at_call(swapping, "_move", number=8),
    "all in": lambda: _die_at_call(swapping, "_write", number=3),
    "before the start": lambda: _die_at_call(NotedApp, "start"),
}


def main() -> None:
    action, moment, directory, journal = sys.argv[1:]
    kuma = KumaApp(Path(directory), NotedApp())
    [entry] = Journal(Path(journal), app_id="shop.status", recipe="uptime-kuma").read()
    MOMENTS[moment]()
    work = kuma.recipe.restore if action == "restore" else kuma.recipe.undo
    asyncio.run(work(entry, NotedProgress()))


if __name__ == "__main__":
    main()
