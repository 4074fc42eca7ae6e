"""An Uptime Kuma 2 whose database is on a MariaDB server."""

from __future__ import annotations

import json
from pathlib import Path

from tests.fixtures.kuma_apps import KUMA_2, KumaApp
from tests.fixtures.mariadb_apps import MariadbApp
from tests.integration.agent.recipes.conftest import NotedApp


class KumaOnMariadb(KumaApp):
    """An app's directory, and the database that its `db-config.json` names."""

    def __init__(self, database: MariadbApp, directory: Path, *, has_admin: bool = True) -> None:
        settings: dict[str, object] = {"client_directory": str(database.server.install.bin_directory)}
        if has_admin:
            settings["admin_user"] = database.admin
            settings["admin_password_file"] = str(database.work_directory / "password")
        self.noted = NotedApp()
        super().__init__(directory, self.noted, content=KUMA_2, settings=settings)
        self.database = database
        (directory / "kuma.db").unlink()
        configuration = {
            "type": "mariadb",
            "hostname": database.server.host,
            "port": database.server.port,
            "dbName": database.database,
            "username": database.user,
            "password": database.password,
        }
        (directory / "db-config.json").write_text(json.dumps(configuration))

    def make_other(self) -> None:
        """Data that is told from the data set's."""
        self.database.sql("DELETE FROM heartbeat WHERE monitor_id > 3; CREATE TABLE own (id int PRIMARY KEY)")
        (self.directory / "upload" / "other.png").write_bytes(b"another logo")
