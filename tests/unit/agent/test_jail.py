"""What a program in the jail cannot do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.jail import PARSER, Jail
from agent.processes import Command, run
from common.errors import ToolFailedError

_OF_A_ROOT_WITHOUT_RIGHTS = """
import subprocess
from agent.jail import PARSER, argv_in_jail
from tests.fixtures import capabilities
capabilities.give_up_all()
subprocess.run(argv_in_jail(PARSER, ["id", "-u"]), check=True)
"""


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


def test_a_jailed_program_of_a_root_without_rights_runs_all_the_same() -> None:
    said = subprocess.run(
        [sys.executable, "-c", _OF_A_ROOT_WITHOUT_RIGHTS], cwd=Path(__file__).parents[3], stdout=subprocess.PIPE
    )

    assert (said.returncode, said.stdout.strip()) == (0, str(os.geteuid()).encode())


async def test_a_jailed_program_cannot_gain_rights() -> None:
    status = (await run(Command(["cat", "/proc/self/status"], jail=PARSER))).decode()

    assert "NoNewPrivs:\t1" in status
    assert "CapEff:\t0000000000000000" in status
