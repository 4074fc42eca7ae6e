"""Forked children are like started ones, see tests/fixtures/nursery.py."""

from __future__ import annotations

import os
import subprocess
from functools import partial
from subprocess import Popen as Started

import psutil
import pytest

from agent.jail import PARSER, TOOL, Jail, argv_in_jail, argv_of_module
from tests.fixtures.nursery import Nursery
from tests.fixtures.waiting import until

_LOOK = """
for file in limits status; do while read -r line; do echo "$line"; done < /proc/self/$file; done
echo /proc/self/fd/*; pwd; umask; export -p
"""
"""Of builtins alone: in a jail nothing else can be started."""
_OWN = ("Pid", "SigQ", "Tgid", "NStgid", "NSpid", "NSpgid", "NSsid", "FDSize", "Vm", "Rss", "voluntary", "nonvol")
"""What no two processes have in common, or (signals that wait) what all of a user's have."""


@pytest.mark.parametrize("jail", [TOOL, PARSER, Jail(file_size_bytes=1 << 20, address_space_bytes=1 << 30)])
def test_a_forked_child_has_the_rights_limits_and_descriptors_of_a_started_one(jail: Jail, nursery: Nursery) -> None:
    reading, writing = os.pipe()
    said = []
    for popen in (Started, nursery.popen):
        process = popen(
            argv_in_jail(jail, ["bash", "-c", _LOOK]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
            pass_fds=[reading],
            start_new_session=True,
        )
        lines = process.communicate()[0].decode().splitlines()
        assert f"PPid:\t{os.getpid()}" in lines
        assert f"NSsid:\t{process.pid}" in lines
        said.append([line for line in lines if not line.startswith(_OWN)])
    os.close(reading)
    os.close(writing)

    assert said[1] == said[0]


async def test_a_forked_module_shows_its_argv_and_ends_as_a_started_one(nursery: Nursery) -> None:
    # It waits for its request.
    argv = argv_of_module(TOOL, "agent.engines.n8n.preparing_child", [])
    ended = []
    for popen in (Started, nursery.popen):
        process = popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={})
        # A forked one writes them over those that it was forked with.
        await until(partial(_shows, psutil.Process(process.pid), argv))
        _, stderr = process.communicate(b"no request")
        ended.append((process.returncode, stderr.splitlines()[-1]))

    assert ended == [(1, ended[0][1])] * 2
    assert b"Error: " in ended[0][1]


def _shows(process: psutil.Process, argv: list[str]) -> bool:
    return [part for part in process.cmdline() if part] == argv
