"""An agent that is killed at a moment: a process of its own, forked from one that has imported everything already.

The moments are not chosen by hand. They are all steps by which an agent makes something durable in files: before each
rename (the journal's lines, a swap's own journal, staged files that take their names), before a line is removed, and
after a recipe has written something into its line; and before the app is started again. So what a recipe does between
two of them is met with nothing of it done, and with all of it.

What a server does meanwhile is no step of the agent's: `killed_once` waits for it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from agent import journal
from tests.contract.agents import Agent, Launch
from tests.fixtures import forked
from tests.fixtures.waiting import until


@dataclass(frozen=True)
class Death:
    """When an agent was killed, and the processes that it had then."""

    moment: str
    children: list[tuple[int, float]]

    async def children_ended(self) -> None:
        """Returns once they have; TimeoutError when one lives on."""
        await until(lambda: not any(_lives(pid, started_at) for pid, started_at in self.children), within_seconds=10)


async def die(launch: Launch, work: str, *arguments: Any) -> Death | None:
    """Start an agent that works until it is killed.

    Args:
        work: a function of this module, which gets an agent, what is called to die, and the arguments.
    Returns:
        None: it came to the end of its work.
    """
    status = await asyncio.to_thread(forked.run, _main, launch, work, arguments)
    if status == 0:
        return None
    assert status == -signal.SIGKILL, f"the agent ended with {status}; its standard error says why"
    return Death(**json.loads(_note(launch).read_text()))


async def killed_once(is_so: Callable[[], bool], launch: Launch, work: str, *arguments: Any) -> Death:
    """Start an agent as `die` does, and kill it as soon as something is so outside of it."""
    process = await asyncio.to_thread(forked.start, _main, launch, work, arguments)
    try:
        await until(lambda: is_so() or not process.is_alive(), within_seconds=60)
        assert process.is_alive(), f"the agent ended with {process.exitcode}; its standard error says why"
        return Death("when something was so outside", _children_of(process.pid))
    finally:
        process.kill()
        process.join()


async def stage(agent: Agent, _kill: Callable[[str], None], transfer_id: str, file: str) -> None:
    """Receive a file."""
    await agent.stage(transfer_id, Path(file).read_bytes())


async def import_and_undo(agent: Agent, kill: Callable[[str], None], transfer_id: str, file: str, number: int) -> None:
    """Stage, restore, undo, and be killed at the moment of that number, counted from 1."""
    app = agent.launch.app
    pass_moment = _counted(kill, number)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.rename" and not str(arguments[1]).endswith("history.json"):
            pass_moment(f"before {Path(os.fsdecode(arguments[1])).name} gets its name")
        elif event == "os.remove" and Path(os.fsdecode(arguments[0])).parent.name == "journal":
            pass_moment("before the journal's line goes")
        elif event == "subprocess.Popen" and app is not None and tuple(arguments[1][-len(app.start) :]) == app.start:
            pass_moment("before the app is started")

    save = journal.Entry.save

    def saved(entry: journal.Entry, **facts: Any) -> None:
        save(entry, **facts)
        pass_moment(f"the journal's line has {', '.join(facts)} while {entry.phase.value}")

    setattr(journal.Entry, "save", saved)  # noqa: B010  # mypy takes no assignment to a method
    upload = Path(file).read_bytes()
    sys.addaudithook(hook)
    await agent.import_(transfer_id, upload)
    await agent.undo(transfer_id)


async def confirm(agent: Agent, kill: Callable[[str], None], transfer_id: str, number: int) -> None:
    """Drop what an import keeps, and be killed before the file or directory of that number goes, counted from 1."""
    pass_moment = _counted(kill, number)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("os.remove", "os.rmdir"):
            pass_moment(f"before {Path(os.fsdecode(arguments[0])).name} goes")

    sys.addaudithook(hook)
    await agent.transfers.discard(transfer_id)


async def export(agent: Agent, kill: Callable[[str], None], options: dict[str, str]) -> None:
    """Be killed with the first chunk of an export in hand."""
    async with aclosing(agent.frames("killed", options=options)) as flowing:
        async for frame in flowing:
            if frame.chunk:
                kill("in an export")


def _counted(kill: Callable[[str], None], number: int) -> Callable[[str], None]:
    """What is called with each moment's name, and kills at the one of that number."""
    moments = 0

    def pass_moment(name: str) -> None:
        nonlocal moments
        moments += 1
        if moments == number:
            kill(f"moment {number}, {name}")

    return pass_moment


def _main(launch: Launch, work: str, arguments: tuple[Any, ...]) -> None:
    def kill(moment: str) -> None:
        _note(launch).write_text(json.dumps({"moment": moment, "children": _children_of(os.getpid())}))
        os.kill(os.getpid(), signal.SIGKILL)

    async def run() -> None:
        agent = Agent(launch)
        await agent.start()
        await globals()[work](agent, kill, *arguments)

    asyncio.run(run())


def _children_of(pid: int | None) -> list[tuple[int, float]]:
    return [(child.pid, child.create_time()) for child in psutil.Process(pid).children(recursive=True)]


def _note(launch: Launch) -> Path:
    return launch.state_directory / "death.json"


def _lives(pid: int, started_at: float) -> bool:
    try:
        process = psutil.Process(pid)
        return process.create_time() == started_at and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
