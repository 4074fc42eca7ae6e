"""What a program in the jail cannot do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.jail import PARSER, Jail
from agent.processes import Command, run
from common.errors import ToolFailedError


async def test_a_jailed_program_starts_no_other() -> None:
    with pytest.raises(ToolFailedError, match=r"[Cc]annot fork|Resource temporarily unavailable"):
        await run(Command(["sh", "-c", "(echo forked); true"], jail=PARSER))


async def test_a_jailed_program_writes_no_file(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    target = tmp_path / "out"

    with pytest.raises(ToolFailedError):
        await run(Command(["dd", "if=/dev/zero", f"of={target}", "count=1"], jail=PARSER))

    assert not target.exists() or target.stat().st_size == 0


async def test_a_jailed_program_gets_no_more_memory_than_allowed() -> None:
    jail = Jail(address_space_bytes=64 << 20)

    with pytest.raises(ToolFailedError):
        await run(Command(["dd", "if=/dev/zero", "of=/dev/null", "bs=256M", "count=1"], jail=jail))


async def test_a_jailed_program_is_nobody_when_we_are_root_and_ourselves_otherwise() -> None:
    uid = int(await run(Command(["id", "-u"], jail=PARSER)))

    assert uid == (65534 if os.geteuid() == 0 else os.geteuid())


async def test_a_jailed_program_cannot_gain_rights() -> None:
    status = (await run(Command(["cat", "/proc/self/status"], jail=PARSER))).decode()

    assert "NoNewPrivs:\t1" in status
    assert "CapEff:\t0000000000000000" in status
