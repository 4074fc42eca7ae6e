"""What tests of volumes do as another user, or in a process that can be killed.

    python -m tests.integration.agent.recipes.volume_program ACTION USER DIRECTORY [ARGUMENT]

USER is a uid to become when it is root that runs the tests; it keeps the right to read, since Python itself may lie
where only root can read. `unreadable` gives up that right as well. Root itself keeps nothing but its name.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import sys
from pathlib import Path

from agent.engines.swapping import Side, Swap
from common.errors import ServiceError
from tests.fakes.imports import MemoryRecord, NotedProgress
from tests.fixtures import capabilities
from tests.fixtures.archives import described, make_nasty
from tests.integration.agent.recipes.conftest import Volume

_DAC_READ_SEARCH = 2
_PR_SET_KEEPCAPS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 8, 47, 2


def become(user: int, *, keeps_reading: bool) -> None:
    """Leave root behind."""
    if os.geteuid() != 0:
        return
    if user == 0:
        capabilities.give_up_all()
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if keeps_reading:
        libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    if keeps_reading:
        right = 1 << _DAC_READ_SEARCH
        header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)(right, right, right, 0, 0, 0)
        assert libc.capset(ctypes.byref(header), ctypes.byref(data)) == 0
        assert libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _DAC_READ_SEARCH, 0, 0) == 0


async def round_trip(volume: Volume) -> dict[str, object]:
    """Export a nasty volume, make another from it; what differs."""
    make_nasty(volume.directory)
    (volume.directory / "program").chmod(0o751)
    exported = await volume.export("tar.zst")
    target = Volume(volume.directory.parent / "target")
    record = await target.import_(exported.content, outside_links="keep")
    await target.recipe.discard(record)
    return {
        "uid": os.geteuid(),
        "warnings": exported.warnings,
        "is_equal": described(target.directory) == described(volume.directory),
        "has_leftovers": target.has_leftovers or volume.has_leftovers,
    }


async def foreign(volume: Volume, archive: str) -> dict[str, object]:
    """Import an archive with other people's files."""
    record = MemoryRecord()
    preview = await volume.stage(Path(archive).read_bytes(), record)
    await volume.recipe.restore(record, NotedProgress())
    owners = {path.lstat().st_uid for path in volume.directory.iterdir() if path.name != ".mathison-data"}
    return {"uid": os.geteuid(), "owners": sorted(owners), "warnings": preview.warnings}


async def export(volume: Volume) -> dict[str, object]:
    """Export; what kept it from it."""
    try:
        await volume.export("tar")
    except ServiceError as error:
        return {"reason": error.reason, "text": error.text}
    return {"reason": ""}


async def obstacle(volume: Volume) -> dict[str, object]:
    """What stands against an import."""
    return {"obstacle": (await volume.recipe.describe()).can_import.obstacle}


def swap_for_ever(user: int, directory: Path, key: str, began: Path) -> None:
    """As a user, make a file and then exchange the sides until killed; for `forked.start`."""
    become(user, keeps_reading=True)
    swap = Swap(directory, key)
    began.touch()
    while True:
        for side in (Side.IMPORTED, Side.PREVIOUS):
            swap.bring(side)


ACTIONS = {
    "round-trip": round_trip,
    "foreign": foreign,
    "unreadable": export,
    "export": export,
    "obstacle": obstacle,
}


def main() -> None:
    action, user, directory, *arguments = sys.argv[1:]
    become(int(user), keeps_reading=action != "unreadable")
    volume = Volume(Path(directory))
    print(json.dumps(asyncio.run(ACTIONS[action](volume, *arguments))))  # type: ignore[operator]


if __name__ == "__main__":
    main()
