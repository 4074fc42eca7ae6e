"""The apps of a deployment: a PostgreSQL with roles as people have them, a cache that saves itself, an object store,
a folder with a program that writes."""

from __future__ import annotations

import abc
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from tools.demo import volume_app
from tools.deployment.programs import run_command, script
from tools.deployment.toml_text import Value
from tools.servers import MinioServer, PostgresServer, RedisServer, ServerStartError, minio, postgres, redis
from tools.servers.processes import require_reachable, server_user


class App(abc.ABC):
    """One app and what its agent has to be told about it."""

    recipe: str

    def __init__(self, app_id: str) -> None:
        self.app_id = app_id

    @abc.abstractmethod
    def start(self, directory: Path) -> None:
        """Bring it up; what it and its agent's settings need is kept in `directory`, which is its own."""

    @abc.abstractmethod
    def close(self) -> None:
        """Stop it and remove what lies outside its directory."""

    @abc.abstractmethod
    def recipe_settings(self) -> Mapping[str, Value]:
        """The agent's table of that name."""

    def agent_argv(self, config_path: Path) -> Sequence[str | Path]:
        """The agent's program: the product's, unless something else is to stand in for it."""
        return [script("mathison-agent"), "--config", config_path]

    def control(self) -> Mapping[str, Value] | None:
        """The agent's table "app": how it is stopped and started. None: that cannot be done."""
        return None

    @property
    @abc.abstractmethod
    def pid(self) -> int:
        """Of its main process; changes when it is restarted."""

    @abc.abstractmethod
    def connection(self) -> Mapping[str, str]:
        """How to look at its data, for people and checks."""


class DatabaseApp(App):
    """A server with one app's database, roles as in bitnami's image: the app's owns the database and may make others.

    Attributes:
        server: runs; its superuser is the agent's admin role.
    """

    recipe = "postgresql"

    def __init__(
        self,
        app_id: str,
        *,
        major: int = 17,
        server_settings: Mapping[str, str] | None = None,
        fsync: bool = False,
        has_admin: bool = True,
        client_directories: Mapping[int, Path] | None = None,
    ) -> None:
        """
        Args:
            has_admin: whether the agent is told the superuser's password.
            client_directories: where the agent finds PostgreSQL's client programs, by major. None: the server's own.
        """
        super().__init__(app_id)
        self.major = major
        self.database = "shop"
        self.role = "shop"
        self.password = secrets.token_urlsafe(16)
        self._server_settings = server_settings
        self._fsync = fsync
        self._has_admin = has_admin
        self._clients = dict(client_directories or {})
        self._server: PostgresServer | None = None
        self._stack = ExitStack()
        self._directory = Path()

    @property
    def server(self) -> PostgresServer:
        if self._server is None:
            raise ServerStartError(f"the server of {self.app_id} was not started")
        return self._server

    def start(self, directory: Path) -> None:
        self._directory = directory
        server = PostgresServer(
            postgres(self.major),
            directory=_own_folder(directory / "cluster"),
            settings=self._server_settings,
            fsync=self._fsync,
        )
        self._server = self._stack.enter_context(server)
        server.psql(
            # A server that logs statements must not log the password.
            "SET log_statement = 'none';\n"
            f"CREATE ROLE {self.role} LOGIN CREATEDB PASSWORD '{self.password}';\n"
            f"CREATE DATABASE {self.database} OWNER {self.role};\n"
        )
        server.psql(f"ALTER SCHEMA public OWNER TO {self.role};", database=self.database)
        _write_secret(self._password_file, self.password)
        _write_secret(self._admin_password_file, server.password)

    def close(self) -> None:
        self._stack.close()

    def recipe_settings(self) -> Mapping[str, Value]:
        clients = self._clients or {self.major: self.server.install.bin_directory}
        settings: dict[str, Value] = {
            "host": self.server.host,
            "port": self.server.port,
            "user": self.role,
            "password_file": self._password_file,
            "database": self.database,
            "client_directories": [str(clients[major]) for major in sorted(clients)],
        }
        if self._has_admin:
            settings |= {"admin_user": self.server.superuser, "admin_password_file": self._admin_password_file}
        return settings

    @property
    def pid(self) -> int:
        return self.server.pid

    @property
    def dsn(self) -> str:
        """The app's own way in. Holds its password."""
        return self.server.dsn(self.database, self.role, password=self.password)

    def connection(self) -> Mapping[str, str]:
        return {"dsn": self.dsn}

    @property
    def _password_file(self) -> Path:
        return self._directory / "password"

    @property
    def _admin_password_file(self) -> Path:
        return self._directory / "admin-password"


class CacheApp(App):
    """A Valkey or Redis with a password that saves itself to disk."""

    recipe = "redis"

    def __init__(self, app_id: str, *, release: str = "valkey-8.1") -> None:
        """
        Args:
            release: one of tools.servers.REDIS_NAMES.
        """
        super().__init__(app_id)
        self.password = secrets.token_urlsafe(16)
        self._release = release
        self._server: RedisServer | None = None
        self._stack = ExitStack()
        self._directory = Path()

    @property
    def server(self) -> RedisServer:
        if self._server is None:
            raise ServerStartError(f"the server of {self.app_id} was not started")
        return self._server

    def start(self, directory: Path) -> None:
        self._directory = directory
        server = RedisServer(
            redis(self._release),
            directory=_own_folder(directory / "server"),
            password=self.password,
            settings={"save": "3600 1"},
        )
        self._server = self._stack.enter_context(server)
        _write_secret(self._password_file, self.password)

    def close(self) -> None:
        self._stack.close()

    def recipe_settings(self) -> Mapping[str, Value]:
        return {"host": self.server.host, "port": self.server.port, "password_file": self._password_file}

    @property
    def pid(self) -> int:
        return self.server.pid

    @property
    def url(self) -> str:
        """A client's way in. Holds the password."""
        return f"redis://:{self.password}@{self.server.host}:{self.server.port}/0"

    def connection(self) -> Mapping[str, str]:
        return {"url": self.url}

    @property
    def _password_file(self) -> Path:
        return self._directory / "password"


class ObjectStoreApp(App):
    """A MinIO with one drive."""

    recipe = "minio"

    def __init__(self, app_id: str) -> None:
        super().__init__(app_id)
        self._server: MinioServer | None = None
        self._stack = ExitStack()
        self._directory = Path()

    @property
    def server(self) -> MinioServer:
        if self._server is None:
            raise ServerStartError(f"the server of {self.app_id} was not started")
        return self._server

    def start(self, directory: Path) -> None:
        self._directory = directory
        server = MinioServer(minio(), directory=_own_folder(directory / "server"), password=secrets.token_urlsafe(16))
        self._server = self._stack.enter_context(server)
        _write_secret(self._password_file, server.password)

    def close(self) -> None:
        self._stack.close()

    def recipe_settings(self) -> Mapping[str, Value]:
        return {
            "url": self.server.url,
            "user": self.server.user,
            "password_file": self._password_file,
            "directory": self.server.drive,
        }

    @property
    def pid(self) -> int:
        return self.server.pid

    def connection(self) -> Mapping[str, str]:
        return {"url": self.server.url, "user": self.server.user, "password": self.server.password}

    @property
    def _password_file(self) -> Path:
        return self._directory / "password"


class VolumeApp(App):
    """A folder with files, and tools/demo/volume_app.py writing to a SQLite database in it.

    Attributes:
        directory: the app's data.
    """

    recipe = "volume"

    def __init__(self, app_id: str, *, runs: bool = True) -> None:
        """
        Args:
            runs: False: only the folder; no program works on it.
        """
        super().__init__(app_id)
        self.directory = Path()
        self.runtime = Path()
        self._runs = runs

    def start(self, directory: Path) -> None:
        self.directory = directory / "data"
        self.runtime = directory / "runtime"
        self.directory.mkdir(exist_ok=True)
        self.runtime.mkdir(exist_ok=True)
        if self._runs:
            self.start_program()

    def close(self) -> None:
        if self._runs:
            self.stop_program()

    def start_program(self) -> None:
        """Returns once it is ready. It ends with this Python process, whoever starts it."""
        run_command(self._command("start"), home=self.runtime)

    def stop_program(self) -> None:
        """Returns once it has ended."""
        run_command(self._command("stop"), home=self.runtime)

    def recipe_settings(self) -> Mapping[str, Value]:
        return {"directory": self.directory}

    def control(self) -> Mapping[str, Value] | None:
        return {"stop": self._command("stop"), "start": self._command("start")} if self._runs else None

    @property
    def pid(self) -> int:
        return volume_app.running_pid(volume_app.Places(self.directory, self.runtime)) or 0

    def connection(self) -> Mapping[str, str]:
        return {"directory": str(self.directory)}

    def _command(self, action: str) -> list[str]:
        places = [f"--data={self.directory}", f"--runtime={self.runtime}"]
        return [sys.executable, volume_app.__file__, action, *places, f"--until-pid={os.getpid()}"]


def _own_folder(folder: Path) -> Path | None:
    """Where a server keeps its data; None, a temporary folder, where its user may not enter that: a checkout in root's
    home."""
    try:
        require_reachable(folder, server_user())
    except ServerStartError:
        return None
    return folder


def _write_secret(path: Path, secret: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(secret + "\n")
