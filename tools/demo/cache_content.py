"""A cache and queue as web shops have them: sessions that expire, carts, counters, rankings, a stream of events."""

from __future__ import annotations

import random
from pathlib import Path

from redis import Redis

MEGABYTE = 1_000_000
_WORDS = (Path(__file__).parent / "words.txt").read_text().split()
_SESSION_BYTES = 600
"""About what one session and its share of the rest take."""
_KEYS_AT_ONCE = 2000
_NEVER_IN_THE_DEMO = 4_102_444_800
"""2100-01-01, in seconds since 1970."""


def load(url: str, *, size_megabytes: int, seed: int = 1) -> None:
    """Fill two databases; the same seed gives the same content."""
    choice = random.Random(seed)  # noqa: S311 - nothing secret
    sessions = size_megabytes * MEGABYTE // _SESSION_BYTES
    with Redis.from_url(url) as client:
        for start in range(0, sessions, _KEYS_AT_ONCE):
            with client.pipeline(transaction=False) as pipeline:
                for number in range(start, min(start + _KEYS_AT_ONCE, sessions)):
                    pipeline.set(f"session:{number}", _text(choice, 40), exat=_NEVER_IN_THE_DEMO + number)
                    if number % 10 == 0:
                        pipeline.hset(f"cart:{number}", mapping={_text(choice, 1): _text(choice, 5) for _ in range(8)})
                        pipeline.zadd("bestsellers", {f"article {number}": choice.random()})
                        pipeline.xadd("events", {"order": number, "note": _text(choice, 10)}, id=f"{1 + number}-1")
                        pipeline.lpush("mail to send", f"order {number}")
                pipeline.execute()
        client.xgroup_create("events", "warehouse", "0")
        client.xreadgroup("warehouse", "packer", {"events": ">"}, count=100)
        client.select(1)
        client.sadd("feature flags", *_WORDS[:200])
        client.pfadd("visitors", *range(10_000))


def write_more(url: str) -> None:
    """Sessions come and go, orders are worked on."""
    with Redis.from_url(url) as client:
        client.delete(*(f"session:{number}" for number in range(500)))
        client.mset({f"session:new {number}": "x" * 300 for number in range(300)})
        client.rpop("mail to send", 100)
        client.xack("events", "warehouse", "1-1", "11-1")
        client.incr("orders today", 42)


def wipe(url: str) -> None:
    """Lose everything."""
    with Redis.from_url(url) as client:
        client.flushall()


def _text(choice: random.Random, words: int) -> str:
    return " ".join(choice.choices(_WORDS, k=words))
