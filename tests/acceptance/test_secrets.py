"""Nothing secret stands on any process's argv, in any log or in any error text."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.acceptance.world import DATABASE_ID, VOLUME_ID, World

HOLDS_NOTHING_UP = True
CLEAR_PASSWORD = re.compile(rb"PASSWORD\s+E?'(?!SCRAM-SHA-256\$)", re.IGNORECASE)
"""In a server's log of statements: a password that is not a verifier."""


class CommandLines:
    """All that any process of this machine had on its argv while this looked; those that were there before, once."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="look at command lines")

    def _look(self) -> None:
        running_before = self._read(os.listdir("/proc"))
        while not self._over.wait(0.002):
            self._read(entry for entry in os.listdir("/proc") if entry not in running_before)

    def _read(self, entries: Iterable[str]) -> set[str]:
        read = set()
        for entry in entries:
            if entry.isdigit():
                with contextlib.suppress(OSError):
                    self.seen.add(Path(f"/proc/{entry}/cmdline").read_bytes())
                    read.add(entry)
        return read

    @contextmanager
    def watched(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._over.set()
            self._thread.join()


def secrets_of(world: World) -> dict[str, bytes]:
    """Every secret of the deployment by what it is."""
    found = {
        "the app's password": world.database.password.encode(),
        "the superuser's password": world.database.server.password.encode(),
        "the API token": world.deployment.token.encode(),
        "the client's key": key_of(world.deployment.client.key),
    }
    for app_id, site in world.deployment.sites.items():
        join_token = site.config_path.with_name("join-token").read_text().strip()
        found[f"the join token of {app_id}"] = join_token.split(".")[1].encode()
        found[f"the agent's key of {app_id}"] = key_of(site.state_directory / "identity" / "identity.pem")
    assert all(len(secret) > 10 for secret in found.values())
    return found


def key_of(path: Path) -> bytes:
    """A line from the middle of a private key in PEM."""
    return path.read_bytes().split(b"PRIVATE KEY-----")[1].splitlines()[1]


def logs_of(world: World) -> dict[str, bytes]:
    """Every log and record that the product and the app's server write."""
    root = world.deployment.directory
    paths = [*root.rglob("*.log"), *root.rglob("*.jsonl"), *(root / "agents").rglob("state/journal/*")]
    paths += [site.state_directory / "history.json" for site in world.deployment.sites.values()]
    return {str(path): path.read_bytes() for path in [*paths, world.database.server.log_path] if path.exists()}


def test_nothing_secret_is_shown_during_exports_and_imports(world: World) -> None:
    command_lines = CommandLines()
    errors: list[bytes] = []

    with command_lines.watched():
        for app_id, format in ((DATABASE_ID, "sql.gz"), (DATABASE_ID, "custom"), (VOLUME_ID, "")):
            world.replace(app_id, world.export(app_id, format=format))
        errors += errors_of_all_kinds(world)

    secrets = secrets_of(world)
    shown = [what for what, secret in secrets.items() if any(secret in line for line in command_lines.seen)]
    assert shown == [], "on argv"
    assert any(b"pg_dump" in line for line in command_lines.seen), "the test has to look often enough"
    logs = logs_of(world)
    assert any("agent" in path for path in logs)
    assert any("controller" in path for path in logs)
    assert [(what, path) for what, secret in secrets.items() for path, log in logs.items() if secret in log] == []
    assert [what for what, secret in secrets.items() if any(secret in error for error in errors)] == []
    assert CLEAR_PASSWORD.search(logs[str(world.database.server.log_path)]) is None


def errors_of_all_kinds(world: World) -> list[bytes]:
    """What callers get when things go wrong: by the agent, by the server, by the controller."""
    junk = world.folder / "junk"
    junk.write_bytes(b"this is no archive\n" * 100)
    bad_sql = world.folder / "bad.sql"
    bad_sql.write_bytes(b"-- PostgreSQL database dump\nSELECT 1/0;\n-- PostgreSQL database dump complete\n")
    answers = [
        world.import_(DATABASE_ID, junk),
        world.import_(DATABASE_ID, bad_sql),
        world.import_(VOLUME_ID, junk),
        world.ask("POST", f"/api/deployments/{DATABASE_ID}/export-data?format=none"),
        world.ask("POST", "/api/deployments/no.app/export-data"),
    ]
    assert all(answer.status >= 400 for answer in answers), answers
    return [answer.body for answer in answers]
