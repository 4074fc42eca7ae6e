"""Real n8ns. They are large and start slowly, so these tests are a target of their own: `make test-n8n`."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.recipes.base import ExportOptions, Limits, Surroundings
from agent.recipes.n8n import N8nRecipe
from tests.fakes.imports import MemoryRecord, NotedProgress, upload_of
from tools.servers.n8n import n8n
from tools.servers.n8n_server import N8nServer


@dataclass
class RunningApp:
    """Implements recipes.base.AppControl with a real server."""

    server: N8nServer
    is_possible: bool = True

    async def stop(self) -> None:
        await asyncio.to_thread(self.server.stop)

    async def start(self) -> None:
        await asyncio.to_thread(self.server.start)


class RealN8n:
    """A real n8n and the recipe that serves it."""

    def __init__(self, server: N8nServer, work_directory: Path, settings: Mapping[str, object]) -> None:
        work_directory.mkdir()
        self.server = server
        self.recipe = N8nRecipe(
            Surroundings(
                app_id="shop.n8n",
                work_directory=work_directory,
                limits=Limits(free_bytes=1),
                app_control=RunningApp(server),
                settings={"directory": str(server.folder), **settings},
                made_by="mathison-data test",
            )
        )

    async def export(self, **options: str) -> bytes:
        (format, *_) = self.recipe.export_formats
        asked = ExportOptions(format=format, app_id="shop.n8n", file_name="n8n", options=options)
        async with self.recipe.export_data(asked, NotedProgress()) as export:
            return b"".join([chunk async for chunk in export.chunks])

    async def import_(self, content: bytes, **options: str) -> MemoryRecord:
        record = MemoryRecord()
        await self.recipe.stage(upload_of(content, options), record, NotedProgress())
        await self.recipe.restore(record, NotedProgress())
        return record


class Editor:
    """n8n's own interface, as its first user has it open."""

    def __init__(self, server: N8nServer) -> None:
        self._server = server
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        person = {"email": "a@b.example", "firstName": "A", "lastName": "B", "password": "Passw0rd-long"}
        self.post("owner/setup", person)

    def post(self, path: str, content: object) -> Any:
        """What n8n answers."""
        request = urllib.request.Request(  # noqa: S310  # a server of ours
            f"{self._server.address}/rest/{path}",
            data=json.dumps(content).encode(),
            headers={"content-type": "application/json", "browser-id": "a browser"},
        )
        with self._opener.open(request, timeout=60) as answer:
            return json.load(answer)["data"]


MakeN8n = Callable[..., RealN8n]


@pytest.fixture
def make_n8n(tmp_path: Path) -> Iterator[MakeN8n]:
    """`make_n8n("source", key="…")`; each is stopped afterwards."""
    with ExitStack() as stack:

        def make(
            name: str,
            *,
            key: str,
            environment: Mapping[str, str] | None = None,
            settings: Mapping[str, object] | None = None,
        ) -> RealN8n:
            server = N8nServer(n8n(), tmp_path / name, key=key, environment=environment)
            stack.callback(server.stop)
            key_file = tmp_path / f"key of {name}"
            key_file.write_text(key)
            return RealN8n(
                server, tmp_path / f"work of {name}", {"encryption_key_file": str(key_file), **(settings or {})}
            )

        yield make
