"""Children as streams: their ending is noticed, and whatever happens none is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from agent import processes
from agent.processes import Command, feed, run, start
from common.errors import ToolFailedError, UploadIncompleteError
from tests.fixtures.children import lives
from tests.fixtures.waiting import until


async def chunks(*given: bytes, error: Exception | None = None) -> AsyncIterator[bytes]:
    for chunk in given:
        yield chunk
    if error is not None:
        raise error


async def test_input_goes_in_and_output_comes_out() -> None:
    assert await run(Command(["tr", "a-z", "A-Z"]), input_bytes=b"hello") == b"HELLO"


async def test_a_failed_program_is_an_error_with_what_it_said_last() -> None:
    noisy = Command(["sh", "-c", "yes noise | head -c 100000 >&2; echo 'the reason' >&2; exit 3"])

    with pytest.raises(ToolFailedError, match=r"sh ended with status 3: (?s:.*)the reason") as failed:
        await run(noisy)

    assert len(failed.value.text) < processes.STDERR_TAIL_BYTES + 100


async def test_a_traceback_of_a_child_of_ours_is_for_the_log() -> None:
    broken = Command(["agent.engines.n8n.preparing_child"], is_module=True)

    with pytest.raises(ToolFailedError) as failed:
        await run(broken, input_bytes=b"no request")

    assert failed.value.text == "the agent's preparing_child ended with status 1"


async def test_a_killed_program_is_an_error_that_names_the_signal() -> None:
    with pytest.raises(ToolFailedError, match="sh was ended by SIGKILL"):
        await run(Command(["sh", "-c", "kill -9 $$"]))


async def test_a_program_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(ToolFailedError, match="no-such-program"):
        await run(Command(["no-such-program"]))


async def test_a_child_sees_nothing_of_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_AGENT", "hunter2")

    environment = (await run(Command(["env"], environment={"GIVEN": "1"}))).decode()

    assert "GIVEN=1" in environment
    assert "hunter2" not in environment


async def test_leaving_early_ends_the_child_and_its_children() -> None:
    async with start(Command(["sh", "-c", "sleep 1000 & echo $!; yes"])) as child:
        grandchild = psutil.Process(int((await child.read()).split(b"\n")[0]))

    assert not psutil.pid_exists(child.pid)
    # The signal reaches a child's child at once; that dies when it is scheduled.
    await until(lambda: not lives(grandchild))


async def test_a_child_that_ignores_the_polite_signal_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "STOP_GRACE_SECONDS", 0.2)

    async with start(Command(["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"])) as child:
        await child.read()

    assert not psutil.pid_exists(child.pid)


async def test_cancellation_ends_the_child() -> None:
    started: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def work() -> None:
        async with start(Command(["sleep", "1000"])) as child:
            started.set_result(child.pid)
            await child.wait()

    task = asyncio.create_task(work())
    pid = await started
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert not psutil.pid_exists(pid)


async def test_no_descriptor_is_left_open_after_many_children() -> None:
    await run(Command(["true"]))
    before = len(os.listdir("/proc/self/fd"))

    for _ in range(5):
        await run(Command(["true"]))
        async with start(Command(["yes"])) as child:
            await child.read()

    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_child_that_stops_reading_ends_the_feeding_without_an_error() -> None:
    async with start(Command(["head", "-c", "10"])) as child:
        await feed(child, chunks(*[b"x" * 1_000_000] * 50))

        assert await child.read() == b"x" * 10
        await child.check()


async def test_a_stream_that_breaks_off_never_looks_whole_to_the_child() -> None:
    async with start(Command(["sh", "-c", "cat; echo END"])) as child:
        with pytest.raises(UploadIncompleteError):
            await feed(child, chunks(b"half", error=UploadIncompleteError("cut")))
        output = await child.read()

    assert b"END" not in output


async def test_children_die_with_a_killed_parent(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    program = f"""
import asyncio
from agent.processes import Command, start
async def main():
    async with start(Command(["sleep", "1000"])) as child:
        open({str(pid_file)!r}, "w").write(str(child.pid))
        print("ready", flush=True)
        await child.wait()
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        child = psutil.Process(int(pid_file.read_text()))
        while child.name() != "sleep":
            pass

        parent.send_signal(signal.SIGKILL)
        parent.wait()

    await until(lambda: not lives(child))
