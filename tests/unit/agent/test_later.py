"""Modules that are read later, in processes of their own: finders are a whole interpreter's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_START = """
import sys, agent.later
sys.path.insert(0, sys.argv[1])
agent.later.MODULES = frozenset({"spare", "broken", "around.spare"})
"""
_SPARE = "print('read'); import threading, time; time.sleep(0.2); value = 1; __all__ = ['value']\n"


def printed(directory: Path, code: str) -> list[str]:
    (directory / "spare.py").write_text(_SPARE)
    (directory / "broken.py").write_text("print('read'); raise ValueError('broken')\n")
    (directory / "around").mkdir()
    (directory / "around" / "__init__.py").touch()
    (directory / "around" / "spare.py").write_text(_SPARE)
    ended = subprocess.run(
        [sys.executable, "-c", _START + code, str(directory)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.split()


def test_a_module_is_not_read_by_importing_it_however_often(tmp_path: Path) -> None:
    code = """
import spare
import spare
from around import spare as other
import around.spare
print(sys.modules["spare"] is spare, hasattr(spare, "__path__"))
"""
    assert printed(tmp_path, code) == ["True", "False"]


@pytest.mark.parametrize(
    "use",
    ["import spare; print(spare.value)", "from spare import value; print(value)", "from spare import *; print(value)"],
)
def test_it_is_read_once_when_something_is_asked_of_it(tmp_path: Path, use: str) -> None:
    code = f"""
{use}
import spare, importlib
print(spare.value, type(spare).__name__, type(spare.__loader__).__name__, spare.__spec__.loader is spare.__loader__)
"""
    assert printed(tmp_path, code) == ["read", "1", "1", "module", "SourceFileLoader", "True"]


def test_threads_that_ask_at_once_all_wait_for_it(tmp_path: Path) -> None:
    code = """
import spare, threading
values = []
threads = [threading.Thread(target=lambda: values.append(spare.value)) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(sum(values))
"""
    assert printed(tmp_path, code) == ["read", "4"]


def test_what_it_does_not_have_and_what_fails_is_said_as_ever(tmp_path: Path) -> None:
    code = """
import spare, broken
print(hasattr(spare, "nothing"))
for _ in range(2):
    try:
        broken.value
    except ValueError as failure:
        print(failure)
"""
    assert printed(tmp_path, code) == ["read", "False", "read", "broken", "read", "broken"]
