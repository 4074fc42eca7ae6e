"""docs/tutorial.md: its commands as they stand there, in one shell, from top to bottom.

Two things differ. The ports are others, since those may be taken. And for root, whom PostgreSQL refuses, the two
programs that make and start a server step down to another user.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.deployment.ports import ReservedPorts
from tools.servers import postgres, short_directory
from tools.servers.cache import cache_directory
from tools.servers.processes import ServerUser, server_user

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = (CHECKOUT / "docs" / "tutorial.md").read_text()
COMMANDS = "".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL))
PORTS = ("54320", "8080", "8443", "8444", "9443", "9444")
STEPPING_DOWN = """#!{python} -IS
import os, sys
if {name!r} == "initdb":
    for found in (".", *os.listdir()):
        os.chown(found, {uid}, {gid})
os.setgroups([])
os.setgid({gid})
os.setuid({uid})
os.execv({program!r}, [{program!r}, *sys.argv[1:]])
"""


def test_the_tutorial_can_be_followed_literally() -> None:
    with short_directory("tutorial") as home, chosen_ports() as ports:
        commands = COMMANDS
        for port, chosen in ports.items():
            commands = re.sub(rf"\b{port}\b", str(chosen), commands)
        if (user := server_user()) is not None:
            commands, changed = re.subn(r"(?m)^PG=.*$", f"PG={programs_for_root(home, user)}", commands)
            assert changed == 1

        ended = run(commands, home=home)

    said = f"{ended.stdout}\n{ended.stderr}"
    assert ended.returncode == 0, said
    assert [line.split()[-1] for line in ended.stdout.splitlines() if line.startswith("shop.")][:2] == ["ready"] * 2
    assert re.findall(r"^ +(\d+)$", ended.stdout, re.MULTILINE) == ["100000", "100000", "10"], said
    assert re.findall(r"^(\w+) version$", ended.stdout, re.MULTILINE) == ["first", "second"], said
    assert "log.txt" in ended.stdout


def run(commands: str, *, home: Path) -> subprocess.CompletedProcess[str]:
    """In a shell that ends at the first failure; whatever it left running is ended, too."""
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home),
        # What make setup and tools.servers got before is not got again.
        "XDG_CACHE_HOME": str(cache_directory().parent),
    }
    shell = subprocess.Popen(
        ["bash", "-e", "-o", "pipefail", "-c", commands],
        cwd=CHECKOUT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        stdout, stderr = shell.communicate(timeout=300)
    finally:
        end_what_is_left(shell.pid, home / "mathison-tutorial")
    return subprocess.CompletedProcess(commands, shell.returncode, stdout, stderr)


def end_what_is_left(session: int, folder: Path) -> None:
    """Nothing, where the tutorial came to its end."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(session, signal.SIGKILL)
    for name in ("cluster/postmaster.pid", "shop-app.pid"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            os.killpg(int((folder / name).read_text().split()[0]), signal.SIGKILL)


@contextmanager
def chosen_ports() -> Iterator[dict[str, int]]:
    """A free port for each of the page's."""
    reserved = ReservedPorts()
    try:
        yield {port: reserved.reserve() for port in PORTS}
    finally:
        reserved.close()


def programs_for_root(home: Path, user: ServerUser) -> Path:
    """A folder like the one with PostgreSQL's programs, in which some run as another user."""
    home.chmod(0o755)
    folder = home / "programs"
    folder.mkdir()
    for program in postgres(17).bin_directory.iterdir():
        if program.name in ("initdb", "pg_ctl"):
            text = STEPPING_DOWN.format(
                python=sys.executable, name=program.name, uid=user.uid, gid=user.gid, program=str(program)
            )
            (folder / program.name).write_text(text)
            (folder / program.name).chmod(0o755)
        else:
            (folder / program.name).symlink_to(program)
    return folder
