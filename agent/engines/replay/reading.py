"""An archive read through from its first byte to its last by a child in a jail; nothing of it is kept."""

from __future__ import annotations

import os
from collections.abc import Sequence

from agent.jail import Jail
from agent.processes import Command, run

_MEMORY_BYTES = 1 << 30


async def read_through(
    file: str, module: str, *arguments: str, pass_fds: Sequence[int] = (), file_size_bytes: int = 0
) -> bytes:
    """What the module printed that was given the archive on its stdin.

    Args:
        file_size_bytes: most that it may write to one of the descriptors passed.
    Raises:
        ToolFailedError: the archive cannot be read through.
    """
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        jail = Jail(file_size_bytes=file_size_bytes, address_space_bytes=_MEMORY_BYTES)
        command = Command([module, *arguments], jail=jail, stdin=descriptor, pass_fds=pass_fds, is_module=True)
        return await run(command)
    finally:
        os.close(descriptor)
