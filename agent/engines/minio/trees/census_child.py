"""The jailed child that counts a tree: its `xl.meta` may be an upload's. A tally is the answer."""

from __future__ import annotations

import msgspec

from agent.engines.minio.trees.answers import answer
from agent.engines.minio.trees.census import count
from agent.engines.minio.trees.tally import Tally


class Request(msgspec.Struct, kw_only=True):
    """What to count, as `census.count` takes it."""

    seconds: float | None
    only: str
    beside: str
    proves: bool


def _count(root: int, request: Request) -> Tally:
    return count(root, seconds=request.seconds, only=request.only, beside=request.beside, proves=request.proves)


if __name__ == "__main__":
    answer(Request, _count)
