"""tools/servers/go_programs.py: one build for both programs, of pinned modules."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tools.servers import grpcurl, minio

GO = r"""#!/bin/sh
if [ "$1 $2" = "env GOVERSION" ]; then echo go1.24.0; exit; fi
(echo "$@"; cat go.mod; env) >> "{log}"
while [ "$1" != -o ]; do shift; done
mkdir -p "$2"
for package in "$3" "$4"; do touch "$2/$(basename "$package")"; done
"""


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a Go writes what it is asked for."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "go").write_text(GO.format(log=tmp_path / "log"))
    (tmp_path / "bin" / "go").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "log"


def test_one_build_makes_minio_and_grpcurl(log: Path) -> None:
    programs = [grpcurl(), minio(), grpcurl()]

    assert [program.name for program in programs] == ["grpcurl", "minio", "grpcurl"]
    assert all(program.is_file() for program in programs)
    assert log.read_text().count("build ") == 1


def test_what_is_built_is_pinned_and_leaves_no_build_cache(log: Path) -> None:
    program = minio()

    said = log.read_text()
    required = re.findall(r"^\t(\S+) (\S+)$", said, flags=re.MULTILINE)
    assert {"github.com/minio/minio", "github.com/fullstorydev/grpcurl"} <= {module for module, _ in required}
    assert all(version.startswith("v") for _, version in required)
    assert os.listdir(program.parents[1]) == ["bin"]
    assert f"GOMODCACHE={program.parents[2]}" in said
