from __future__ import annotations

from agent.engines.minio.directory.previewing import expiring


def test_buckets_that_are_too_many_to_name_are_counted() -> None:
    assert "The buckets a, b, c, d, e and 2 more delete objects" in expiring(list("abcdefg"))
