"""Ctrl-C before a command has begun."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("loading", ["typer", "aiohttp"], ids=["before arguments are read", "before a command's work"])
def test_a_command_that_is_stopped_while_it_loads_says_so_and_nothing_else(loading: str, tmp_path: Path) -> None:
    program = (
        "import builtins, os, signal, sys; load = builtins.__import__\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def stopped(name, *rest):\n"
        f"    if name.partition('.')[0] == {loading!r}: os.kill(os.getpid(), signal.SIGINT)\n"
        "    return load(name, *rest)\n"
        "builtins.__import__ = stopped\n"
        "from cli.entry import main; sys.argv = ['mathison', 'apps', '--url', 'http://127.0.0.1:1']; main()"
    )

    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}", "MATHISON_TOKEN": "mdt_x"},
        capture_output=True,
        check=False,
    )

    assert done.returncode == 130, done.stderr
    assert done.stderr == b"Stopped.\n"
    assert done.stdout == b""
