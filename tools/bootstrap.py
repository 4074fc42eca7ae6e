"""Makes `.venv` hold what requirements.lock names, and this checkout, editable. `make setup` is this program.

It runs before anything is installed, so it imports the standard library only. Two at once (several people or programs
sharing a checkout) wait for each other.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
LOCK_FILE = CHECKOUT / "requirements.lock"
VENV = CHECKOUT / ".venv"
READY = VENV / ".ready"
"""Written last, holding what was installed: without it the environment counts as half made."""


class BootstrapError(Exception):
    """The environment could not be made; the text says what to do."""


def locked_uv(lock_text: str) -> str:
    """The part of the lock file that names uv, version and hashes, as a requirements file of its own."""
    found = re.search(r"^uv==.*?(?=^\S|\Z)", lock_text, flags=re.MULTILINE | re.DOTALL)
    if found is None:
        raise BootstrapError(f"{LOCK_FILE.name} does not name uv; put it back from git, then: make lock")
    return found.group()


def wanted_state() -> str:
    """What decides whether an installation is still good: interpreter, lock file, project metadata."""
    return "\n".join((sys.version, LOCK_FILE.read_text(), (CHECKOUT / "pyproject.toml").read_text()))


def make_venv() -> Path:
    """Make `.venv` with uv in it, by whichever way this Python allows.

    Debian's python3 without python3-venv lacks ensurepip, so `python -m venv` fails there; an environment without pip
    can still be made, and the machine's pip (22.3 or newer) installs into it. A directory that lost its pyvenv.cfg is
    no environment: its python would install into the machine's own.

    Returns:
        The path of uv.
    """
    python = VENV / "bin" / "python"
    uv = VENV / "bin" / "uv"
    if (VENV / "pyvenv.cfg").is_file() and _works([python, "-m", "pip", "--version"]):
        installer: list[str | Path] = [python, "-m", "pip"]
    elif _works([sys.executable, "-m", "venv", "--clear", VENV]):
        installer = [python, "-m", "pip"]
    elif _works([sys.executable, "-m", "venv", "--clear", "--without-pip", VENV]) and _works(
        [sys.executable, "-m", "pip", "--python", python, "--version"]
    ):
        installer = [sys.executable, "-m", "pip", "--python", python]
    elif _works(["uv", "venv", "--clear", "--python", sys.executable, VENV]):
        uv.symlink_to(shutil.which("uv") or "uv")
        return uv
    else:
        raise BootstrapError(
            f"{sys.executable} has neither venv with ensurepip nor pip, so nothing can be installed with it. "
            "On Debian and Ubuntu: apt-get install python3-venv (or python3-pip)."
        )
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirement:
        requirement.write(locked_uv(LOCK_FILE.read_text()))
        requirement.flush()
        _run([*installer, "install", "--quiet", "--no-deps", "--require-hashes", "-r", requirement.name])
    return uv


def install(uv: Path) -> None:
    """Make the environment hold exactly the lock file's packages, and the project, editable."""
    python = VENV / "bin" / "python"
    _run([uv, "pip", "sync", "--quiet", "--python", python, "--require-hashes", LOCK_FILE])
    editable: list[str | Path] = ["--no-deps", "--no-build-isolation", "--editable", CHECKOUT]
    _run([uv, "pip", "install", "--quiet", "--python", python, *editable])


def _environment() -> dict[str, str]:
    """uv does not read pip's settings; a machine that names its package index for pip alone means uv too.

    Nor does it look where pip does for authorities: into the system's store, where companies put theirs. The option is
    UV_SYSTEM_CERTS (uv 0.13), UV_NATIVE_TLS before; SSL_CERT_FILE goes before both.
    """
    environment = dict(os.environ)
    for name in ("UV_SYSTEM_CERTS", "UV_NATIVE_TLS"):
        environment.setdefault(name, "true")
    for pip_name, uv_name in (("PIP_INDEX_URL", "UV_DEFAULT_INDEX"), ("PIP_CERT", "SSL_CERT_FILE")):
        if pip_name in environment:
            environment.setdefault(uv_name, environment[pip_name])
    environment.pop("VIRTUAL_ENV", None)
    return environment


def _run(command: list[str | Path]) -> None:
    ended = subprocess.run(command, cwd=CHECKOUT, env=_environment(), check=False)
    if ended.returncode != 0:
        raise BootstrapError(f"exit status {ended.returncode} from: {' '.join(map(str, command))}")


def _works(command: list[str | Path]) -> bool:
    try:
        ended = subprocess.run(command, cwd=CHECKOUT, env=_environment(), capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return ended.returncode == 0


def main() -> int:
    """Exit status 0 when the environment is there and up to date, made now or before."""
    if sys.hexversion < 0x030B0000:
        found = f"{sys.executable} is {sys.version.split()[0]}"
        print(
            f"setup: Python 3.11 or newer is needed; {found}. Name one: make PYTHON=python3.12 setup", file=sys.stderr
        )
        return 1
    with (CHECKOUT / ".venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = wanted_state()
        if READY.is_file() and READY.read_text() == wanted:
            READY.touch()
            return 0
        try:
            uv = make_venv()
            READY.unlink(missing_ok=True)
            install(uv)
        except BootstrapError as error:
            print(f"setup: {error}", file=sys.stderr)
            return 1
        READY.write_text(wanted)
        print("setup: .venv is ready")
    return 0


if __name__ == "__main__":
    sys.exit(main())
