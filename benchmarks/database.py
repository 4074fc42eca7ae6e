"""A PostgreSQL database of 1.5 GB: out against pg_dump, in against psql and pg_restore."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.programs import curl, shell
from benchmarks.rows import Row, medians, ratio_at_most, seconds_of
from tools.deployment import DatabaseApp, Deployment

OTHER = "other"
"""The database that psql and pg_restore load into."""


class DatabaseBenchmark:
    """One app's database, and the same for the programs of others on the same server."""

    def __init__(self, deployment: Deployment, app: DatabaseApp, folder: Path) -> None:
        """
        Args:
            folder: for archives and dumps; on the disk that is to be measured.
        """
        self._deployment = deployment
        self._app = app
        self._folder = folder
        server = app.server
        self._bin = server.install.bin_directory
        self._environment = {
            **server.environment(app.database, app.role),
            "PGPASSWORD": app.password,
        }
        self._as_admin = server.environment("postgres")

    def export_rows(self, *, rounds: int, say: Callable[[str], None]) -> list[Row]:
        """Through agent, controller and HTTP to a file, against the dump program alone."""
        found = medians(
            {
                "export to sql.gz": lambda: self.export("sql.gz", "ours.sql.gz"),
                "export without a fingerprint": lambda: self.export("sql.gz", "ours.sql.gz", fingerprint="no"),
                "pg_dump > file": lambda: self._timed(f"{self._bin}/pg_dump > {self._folder}/theirs.sql"),
                "pg_dump | gzip > file": lambda: self._timed(
                    f"{self._bin}/pg_dump | gzip > {self._folder}/theirs.sql.gz"
                ),
            },
            rounds=rounds,
            say=say,
        )
        ours = found.pop("export to sql.gz")
        limits = {"export without a fingerprint": 1.15, "pg_dump > file": 1.05, "pg_dump | gzip > file": 0.4}
        return [
            Row(f"export to sql.gz against {name}", ours, "s", ratio_at_most(limits[name]), theirs)
            for name, theirs in found.items()
        ]

    def import_rows(self, *, rounds: int, say: Callable[[str], None]) -> list[Row]:
        """Our own archives, until the app works on them, against loading into a database made before."""
        self.export("sql", "ours.sql")
        self.export("custom", "ours.custom")
        shell(f"{self._bin}/pg_dump -Fc > {self._folder}/theirs.custom", environment=self._environment)
        found = medians(
            {
                "import of sql.gz": lambda: self.import_("ours.sql.gz"),
                "psql -1": lambda: self._load(
                    f"{self._bin}/psql -X -q -1 -v ON_ERROR_STOP=1 -f {self._folder}/theirs.sql"
                ),
                "import of sql": lambda: self.import_("ours.sql"),
                "pg_restore -j2": lambda: self._load(
                    f"{self._bin}/pg_restore -O -x -j2 -d {OTHER} {self._folder}/theirs.custom"
                ),
                "import of custom": lambda: self.import_("ours.custom"),
            },
            rounds=rounds,
            say=say,
        )
        return [
            Row(f"{ours} against {theirs}", found[ours], "s", ratio_at_most(limit), found[theirs])
            for ours, theirs, limit in (
                ("import of sql.gz", "psql -1", 0.85),
                ("import of sql", "psql -1", 0.85),
                ("import of sql.gz", "pg_restore -j2", 1.05),
                ("import of custom", "pg_restore -j2", 1.05),
            )
        ]

    def export(self, format: str, name: str, *, fingerprint: str = "yes") -> float:
        """Seconds."""
        route = f"/api/deployments/{self._app.app_id}/export-data?format={format}&fingerprint={fingerprint}"
        return seconds_of(lambda: curl(self._deployment, route, "--output", self._folder / name))

    def import_(self, name: str) -> float:
        """Seconds; what was there before is dropped afterwards, outside of the measured time."""
        route = f"/api/deployments/{self._app.app_id}"
        self._settle()
        seconds = seconds_of(
            lambda: curl(
                self._deployment,
                f"{route}/import-data",
                "--header",
                "Content-Type: application/octet-stream",
                "--upload-file",
                self._folder / name,
            )
        )
        curl(self._deployment, f"{route}/confirm-import")
        return seconds

    def _load(self, command: str) -> float:
        self._app.server.psql(f"DROP DATABASE IF EXISTS {OTHER};")
        self._app.server.psql(f"CREATE DATABASE {OTHER} OWNER {self._app.role};")
        self._app.server.psql(f"ALTER SCHEMA public OWNER TO {self._app.role};", database=OTHER)
        self._settle()
        seconds = seconds_of(lambda: shell(command, environment={**self._environment, "PGDATABASE": OTHER}))
        self._app.server.psql(f"DROP DATABASE {OTHER};")
        return seconds

    def _timed(self, command: str) -> float:
        return seconds_of(lambda: shell(command, environment=self._environment))

    def _settle(self) -> None:
        """What was written before is on disk, so that nobody pays for the work of the one before."""
        self._app.server.psql("CHECKPOINT;")
