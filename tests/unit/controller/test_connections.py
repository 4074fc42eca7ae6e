from __future__ import annotations

import resource

import pytest

from controller.connections import most_connections


@pytest.mark.parametrize(("open_files", "most"), [(1 << 20, 1000), (256, 128), (1, 1), (resource.RLIM_INFINITY, 1000)])
def test_connections_take_at_most_half_of_the_open_files(
    monkeypatch: pytest.MonkeyPatch, open_files: int, most: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (open_files, open_files))

    assert most_connections(1000) == most
