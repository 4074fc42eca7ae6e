"""Runs `mathison` in forks of a process that has imported it already: 30 ms a run instead of half a second.

Each line on standard input is a JSON request: arguments, environment, folder, and files for the three standard streams.
Each line on standard output is the exit code of one run.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from typing import Any

MODULES = (
    "cli.__main__",
    "cli.client",
    "cli.session",
    "cli.exporting",
    "cli.importing",
    "cli.inspecting",
    "cli.reports",
)


def serve() -> None:
    for module in MODULES:
        importlib.import_module(module)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run(json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def run(request: dict[str, Any]) -> None:
    """The command with everything of its own; does not return."""
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    for descriptor, (path, flags) in enumerate(
        zip(request["streams"], (os.O_RDONLY, os.O_WRONLY, os.O_WRONLY), strict=True)
    ):
        os.dup2(os.open(path, flags), descriptor)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115  # until the process ends
    exit_code = 1
    try:
        importlib.import_module("cli.__main__").app(request["arguments"], prog_name="mathison")
    except SystemExit as ended:
        exit_code = ended.code if isinstance(ended.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)


if __name__ == "__main__":
    serve()
