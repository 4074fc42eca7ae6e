"""New clusters of PostgreSQL: copies of one that initdb makes once for each install, since it takes 0.5 s of CPU.

Copies have the same system identifier, and passwords of their own.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

from tools.servers.cache import kept
from tools.servers.postgresql import PostgresInstall
from tools.servers.processes import ServerStartError, ServerUser, give, run_as

SUPERUSER = "postgres"


def make_cluster(
    install: PostgresInstall,
    directory: Path,
    *,
    user: ServerUser | None,
    password: str,
    encoding: str,
    locale: str,
    settings: Mapping[str, str],
) -> None:
    """Make a cluster in a folder that is not there yet.

    Args:
        password: the superuser's.
        settings: how its hash is made.
    Raises:
        ServerStartError: with the last words of the program that failed; a folder may be left.
    """
    # Builds of one version differ in what initdb finds, for example in collations.
    build = hashlib.sha256(str(install.bin_directory).encode()).hexdigest()[:8]
    original = kept(
        "postgresql-cluster",
        f"{install.version}-{encoding}-{locale}-{build}",
        lambda folder: _initdb(install, folder, user=user, encoding=encoding, locale=locale),
    )
    _run(user, ["cp", "--recursive", original / "data", directory])
    directory.chmod(0o700)
    options = [f"--{name}={value}" for name, value in settings.items()]
    quoted = password.replace("'", "''")
    _run(
        user,
        [install.bin_directory / "postgres", "--single", "-F", "-D", directory, *options, "postgres"],
        script=f"ALTER ROLE {SUPERUSER} PASSWORD '{quoted}'\n",
    )


def _initdb(install: PostgresInstall, folder: Path, *, user: ServerUser | None, encoding: str, locale: str) -> None:
    password_file = folder / "password"
    password_file.write_text(secrets.token_urlsafe(12) + "\n")
    for path in (folder, password_file):
        give(path, user)
    _run(
        user,
        [
            install.bin_directory / "initdb",
            f"--pgdata={folder / 'data'}",
            f"--username={SUPERUSER}",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            f"--encoding={encoding}",
            f"--locale={locale}",
        ],
    )
    password_file.unlink()


def _run(user: ServerUser | None, command: Sequence[str | Path], *, script: str = "") -> None:
    ended = run_as(user, command, environment=bare_environment(), script=script)
    if ended.returncode != 0:
        raise ServerStartError(f"{command[0]} failed: {ended.stderr.strip()[-2000:]}")


def bare_environment() -> dict[str, str]:
    """The caller's PG* variables, locale and such must not reach a server or psql."""
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
