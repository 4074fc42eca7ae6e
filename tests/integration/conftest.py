"""The agent's children in these tests are forked, see tests/fixtures/nursery.py."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.fixtures.nursery import Nursery


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    with Nursery.started() as nursery:
        yield nursery


@pytest.fixture(autouse=True)
def forked_children(nursery: Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", nursery.popen)
