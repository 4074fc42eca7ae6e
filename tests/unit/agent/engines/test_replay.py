"""Which module replays an archive, and that no other is imported for it."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from agent.engines.replay.__main__ import SCHEMES, replay_of


@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_scheme_has_a_function_that_replays_it(scheme: str) -> None:
    assert inspect.iscoroutinefunction(replay_of(scheme))


def test_an_archive_of_redis_is_replayed_without_what_others_need() -> None:
    program = (
        "import sys; from agent.engines.replay.__main__ import replay_of; replay_of('redis/4');"
        " print(sorted({'aiohttp', 'psycopg', 'sqlite3'} & sys.modules.keys()))"
    )

    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert ended.stdout.strip() == "[]"
