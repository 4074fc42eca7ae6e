"""The jailed child that looks through a portable archive that was unpacked; an inventory is the answer."""

from __future__ import annotations

from pathlib import Path

import msgspec

from agent.engines.minio.portable.tree import Inventory, look_through
from agent.engines.minio.trees.answers import answer


class Request(msgspec.Struct, kw_only=True):
    """What to look for, as `tree.look_through` takes it."""

    only: str


def _look_through(root: int, request: Request) -> Inventory:
    return look_through(Path(), only=request.only)


if __name__ == "__main__":
    answer(Request, _look_through)
