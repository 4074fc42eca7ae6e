"""tools/bootstrap.py: what it takes from the lock file, and what the lock file may hold."""

from __future__ import annotations

import re

import pytest

from tools.bootstrap import LOCK_FILE, BootstrapError, locked_uv


def test_uv_is_taken_from_the_lock_file_with_its_hashes_and_nothing_else() -> None:
    lock = "idna==3.1 \\\n    --hash=sha256:aa\nuv==1.2.3 \\\n    --hash=sha256:bb \\\n    --hash=sha256:cc\nyarl==1\n"

    assert locked_uv(lock) == "uv==1.2.3 \\\n    --hash=sha256:bb \\\n    --hash=sha256:cc\n"


def test_uv_at_the_end_of_the_lock_file_is_found() -> None:
    assert locked_uv("a==1\nuv==1.2.3 \\\n    --hash=sha256:bb\n") == "uv==1.2.3 \\\n    --hash=sha256:bb\n"


def test_a_lock_file_without_uv_is_refused() -> None:
    with pytest.raises(BootstrapError, match="does not name uv"):
        locked_uv("uvloop==1.0\n")


def test_the_lock_file_pins_every_package_by_hash_and_names_no_host() -> None:
    lines = [line for line in LOCK_FILE.read_text().splitlines() if not line.startswith("#")]

    unexpected = [
        line for line in lines if not re.match(r"[a-z0-9._-]+==\S+( ; .*)? \\$|    --hash=sha256:[0-9a-f]{64}", line)
    ]
    assert unexpected == []
    assert not any("//" in line for line in lines)
