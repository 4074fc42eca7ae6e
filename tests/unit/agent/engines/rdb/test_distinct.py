"""Whether anything stands twice, told in little memory."""

from __future__ import annotations

import random
import tempfile
from array import array

import pytest

from agent.engines.rdb import distinct
from agent.engines.rdb.distinct import Distinct


def _hashes(count: int) -> list[int]:
    generator = random.Random(3)
    return list({generator.getrandbits(63) - (1 << 62) for _ in range(count)})


@pytest.mark.parametrize("count", [0, 1, 1000, 40_000])
@pytest.mark.parametrize("spills", [False, True], ids=["in memory", "in a file"])
def test_many_different_things_are_different(count: int, *, spills: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distinct, "BUCKET_HASHES", 16)
    monkeypatch.setattr(distinct, "_BLOCK_BYTES", 16 * 8)
    with tempfile.TemporaryFile() as file:
        found = Distinct(file.fileno() if spills else None)
        found.add(array("q", _hashes(count)))

        assert not found.has_any_twice()
        assert (file.seek(0, 2) > 0) == (spills and count > 10_000)


@pytest.mark.parametrize("place", [0, 777, 39_000])
def test_one_that_stands_twice_is_found_wherever_it_is(place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distinct, "BUCKET_HASHES", 16)
    monkeypatch.setattr(distinct, "_BLOCK_BYTES", 16 * 8)
    monkeypatch.setattr(distinct, "PASS_HASHES", 50)
    hashes = _hashes(40_000)
    with tempfile.TemporaryFile() as file:
        found = Distinct(file.fileno())
        for start in range(0, len(hashes), 1000):
            found.add(array("q", hashes[start : start + 1000]))
        found.add(array("q", [hashes[place]]))

        assert found.has_any_twice()


def test_what_is_added_is_taken_over() -> None:
    hashes = array("q", [1, 2, 3])

    Distinct().add(hashes)

    assert not hashes
