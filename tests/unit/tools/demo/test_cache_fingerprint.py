"""What the demo shows of a cache's content."""

from __future__ import annotations

from tools.demo.cache_fingerprint import Fingerprint, Keys


def fingerprint(*numbers: int, hash: str = "aa", functions: dict[str, str] | None = None) -> Fingerprint:
    return Fingerprint({number: {"string": Keys(1, hash, "")} for number in numbers}, functions or {})


def test_the_order_of_databases_does_not_matter_to_the_digest() -> None:
    assert fingerprint(0, 5).sha256 == fingerprint(5, 0).sha256


def test_another_database_content_or_function_has_another_digest() -> None:
    others = [fingerprint(0), fingerprint(1), fingerprint(0, hash="bb"), fingerprint(0, functions={"shop": "cc"})]

    assert len({other.sha256 for other in others}) == len(others)
