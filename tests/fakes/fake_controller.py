"""A controller's REST API as the command line meets it, on a real socket: no agents, no checks, told how to behave."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self

from aiohttp import web

State = dict[str, Any]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
TOKEN = "test-token-5c1e"
PIECE_BYTES = 64 << 10


class AgentLostError(Exception):
    """The agent went away in the middle of an import."""


@dataclass
class Upload:
    """An import that arrived."""

    transfer_id: str
    body: bytes
    headers: dict[str, str]
    query: dict[str, str]


@dataclass
class FakeController:
    """Set the attributes before a request; look at what was seen after it.

    Attributes:
        archive: what an export sends.
        cut_after: bytes after which an export's connection is dropped; None sends all.
        cut_result: what the agent then says of the transfer: "failed", or "cancelled" as where its caller went away.
        holds_export: an export sends its first piece and then nothing.
        claimed: size and SHA-256 that the transfer's state claims for an export; None: the true ones.
        export_warnings: what an export's state says at its end.
        forgets_transfers: asked for a transfer, it answers that it knows none.
        refusals: problems by route ("export", "import", ...), sent instead of an answer.
        broken_import: "upload" drops the connection at the first piece; "answer" reads everything, drops it, and has
            the import done a moment later; "answer, forever" never answers again; "agent" reads everything and loses
            the agent, which comes back a moment later; "caller" reads everything and ends the import as the agent does
            when its caller goes away; "hold" reads everything and waits; "fault" fails in the swap and leaves it
            unfinished.
        broken_undo: "answer" drops the connection and has the undo done a moment later; "controller" drops it and has
            nothing done; "answer, forever" never answers again; "agent" loses the agent in the middle, which has
            undone it when it is back; "hold" undoes and does not answer; "slowly" holds, and undoes once it was asked
            about the import three times; "drop, slowly" drops the connection and does the same; "fail slowly" holds,
            begins by then, and has taken it back when it is asked again; "fault" fails and leaves it unfinished.
        broken_confirm: "answer" drops the data and then the connection; "controller" drops the connection with nothing
            done; "answer, forever" never answers again; "agent" loses the agent, which has dropped the data when it is
            back; "hold" drops the data and does not answer.
        undo_note: what an undo says of the data that is back.
        holds_cancel: asked to cancel, it does not answer.
        swap_result: what a transfer that could not be cancelled has come to by the next time it is asked for; empty:
            it goes on.
    """

    archive: bytes = b"archive " * 40_000
    file_name: str = "shop.db-2026-11-23.sql.gz"
    cut_after: int | None = None
    cut_result: str = "failed"
    holds_export: bool = False
    claimed: tuple[int, str] | None = None
    forgets_transfers: bool = False
    export_warnings: list[str] = field(default_factory=list)
    refusals: dict[str, tuple[int, str, str]] = field(default_factory=dict)
    broken_import: str = ""
    broken_undo: str = ""
    undo_note: str = ""
    broken_confirm: str = ""
    holds_cancel: bool = False
    import_error: tuple[str, str] | None = None
    can_cancel: bool = True
    swap_result: str = ""
    apps: list[State] = field(default_factory=lambda: [app("shop.db"), app("shop.files", recipe="volume")])

    formats: list[str] = field(default_factory=list)
    uploads: list[Upload] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    states: dict[str, State] = field(default_factory=dict)
    url: str = ""

    @contextlib.asynccontextmanager
    async def serve(self, trust: ssl.SSLContext | None = None) -> AsyncGenerator[Self, None]:
        """Listen on a free port of loopback."""
        application = web.Application(client_max_size=1 << 30)
        for method, path, name, handler in (
            ("GET", "/api/deployments", "apps", self._apps),
            ("GET", "/api/deployments/{id}", "app", self._app),
            ("GET", "/api/deployments/{id}/transfers", "transfers", self._transfers),
            ("GET", "/api/deployments/{id}/fingerprint", "fingerprint", self._fingerprint),
            ("POST", "/api/deployments/{id}/export-data", "export", self._export),
            ("POST", "/api/deployments/{id}/import-data", "import", self._import),
            ("POST", "/api/deployments/{id}/undo-import", "undo", self._undo),
            ("POST", "/api/deployments/{id}/confirm-import", "confirm", self._confirm),
            ("GET", "/api/transfers/{transfer}", "transfer", self._transfer),
            ("DELETE", "/api/transfers/{transfer}", "cancel", self._cancel),
            ("GET", "/api/transfers/{transfer}/events", "events", self._events),
        ):
            application.router.add_route(method, path, self._checked(name, handler))
        runner = web.AppRunner(application, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=trust).start()
        port = runner.addresses[0][1]
        self.url = f"{'https' if trust else 'http'}://127.0.0.1:{port}"
        try:
            yield self
        finally:
            await runner.cleanup()

    def _checked(self, name: str, handler: Handler) -> Handler:
        async def checked(request: web.Request) -> web.StreamResponse:
            self.requests.append(name)
            if name in self.refusals:
                status, reason, text = self.refusals[name]
                return problem(status, reason, text)
            if request.headers.get("Authorization") != f"Bearer {TOKEN}":
                return problem(401, "NOT_AUTHENTICATED", "No token, or one that is not known.")
            return await handler(request)

        return checked

    async def _apps(self, request: web.Request) -> web.Response:
        return web.json_response({"deployments": self.apps})

    async def _app(self, request: web.Request) -> web.Response:
        return self._found(request) or web.json_response(self._named(request))

    async def _transfers(self, request: web.Request) -> web.Response:
        return self._found(request) or web.json_response({"transfers": list(reversed(self.states.values()))})

    async def _fingerprint(self, request: web.Request) -> web.Response:
        parts = {"table public.users": "2 rows, 1f"}
        fingerprint = {"scheme": "postgresql/2", "sha256": "ab" * 32, "parts": parts}
        found = {"app_id": request.match_info["id"], "fingerprint": fingerprint, "taken_at": "2026-11-23T18:26:00Z"}
        return self._found(request) or web.json_response(found)

    async def _export(self, request: web.Request) -> web.StreamResponse:
        if (missing := self._found(request)) is not None:
            return missing
        transfer_id = request.headers["Mathison-Transfer"]
        self.formats.append(request.query.get("format", ""))
        state = self.states[transfer_id] = running(transfer_id, "export", total_bytes=len(self.archive))
        answer = web.StreamResponse(headers={"Mathison-Transfer": transfer_id, "Content-Type": "application/gzip"})
        answer.headers["Content-Disposition"] = f'attachment; filename="{self.file_name}"'
        answer.enable_chunked_encoding()
        await answer.prepare(request)
        end = len(self.archive) if self.cut_after is None else self.cut_after
        for start in range(0, end, PIECE_BYTES):
            await answer.write(self.archive[start : min(start + PIECE_BYTES, end)])
            state["progress"]["read_bytes"] = start
            if self.holds_export:
                try:
                    await asyncio.Event().wait()
                finally:
                    state["result"] = state["result"] or "cancelled"
        if self.cut_after is not None:
            if self.cut_result == "failed":
                fail(state, "TOOL_FAILED", "pg_dump was ended by SIGKILL")
            else:
                fail(state, "CANCELLED", "The caller went away.")
                state["result"] = self.cut_result
            _drop(request)
            return answer
        size, sha256 = self.claimed or (len(self.archive), hashlib.sha256(self.archive).hexdigest())
        told = {"size_bytes": size, "sha256": sha256, "counts": {"tables": 2}, "warnings": self.export_warnings}
        state |= {"result": "succeeded", "end": told}
        await answer.write_eof()
        return answer

    async def _import(self, request: web.Request) -> web.StreamResponse:
        if (missing := self._found(request)) is not None:
            return missing
        transfer_id = request.headers["Mathison-Transfer"]
        if self.broken_import == "upload":
            await request.content.readany()
            _drop(request)
            return web.Response()
        state = self.states[transfer_id] = running(transfer_id, "import")
        body = await request.read()
        self.uploads.append(Upload(transfer_id, body, dict(request.headers), dict(request.query)))
        try:
            await self._break(request, state)
        except AgentLostError:
            return problem(503, "AGENT_UNAVAILABLE", "The agent of shop.db went away.")
        if self.broken_import == "fault":
            state["progress"]["phase"] = "restoring"
            return problem(500, "INTERNAL", "A fault of the agent ended this.")
        if self.import_error is not None:
            fail(state, *self.import_error)
            return problem(422, *self.import_error)
        if state["result"] is None:
            finish_import(state, is_dry_run=request.query.get("dry_run") == "true")
        return web.json_response(state)

    async def _break(self, request: web.Request, state: State) -> None:
        match self.broken_import:
            case "answer":
                state["progress"]["phase"] = "restoring"
                asyncio.get_running_loop().call_later(0.3, lambda: finish_import(state, is_dry_run=False))
                _drop(request)
            case "answer, forever":
                self.refusals |= {"transfer": (503, "AGENT_UNAVAILABLE", "The agent of shop.db does not answer.")}
                _drop(request)
            case "agent":
                failed = partial(fail, state, "AGENT_UNAVAILABLE", "The agent was restarted; the data is as it was.")
                asyncio.get_running_loop().call_later(0.3, failed)
                raise AgentLostError
            case "caller":
                state |= {"result": "cancelled", "error": {"reason": "CANCELLED", "message": "The caller went away."}}
                _drop(request)
            case "hold":
                await asyncio.Event().wait()

    async def _undo(self, request: web.Request) -> web.Response:
        if (missing := self._found(request)) is not None:
            return missing
        transfer_id = request.query.get("transfer_id", "cli-earlier")
        state = self.states[transfer_id] = running(transfer_id, "import") | {"result": "succeeded"}
        loop = asyncio.get_running_loop()
        match self.broken_undo:
            case "answer":
                state |= {"result": None, "progress": state["progress"] | {"phase": "undoing"}}
                loop.call_later(0.3, lambda: state.update(result="succeeded", undone=True))
                _drop(request)
            case "controller":
                _drop(request)
            case "answer, forever":
                self.refusals |= {"transfer": (503, "AGENT_UNAVAILABLE", "The agent of shop.db does not answer.")}
                _drop(request)
            case "agent":
                state |= {"undone": True}
                return problem(503, "AGENT_UNAVAILABLE", "The agent of shop.db went away.")
            case "fault":
                state |= {"result": None, "progress": state["progress"] | {"phase": "undoing"}}
                return problem(500, "INTERNAL", "A fault of the agent ended this.")
            case "hold":
                state |= {"undone": True}
                await asyncio.Event().wait()
            case "slowly" | "fail slowly":
                await asyncio.Event().wait()
            case "drop, slowly":
                _drop(request)
        state |= {"undone": self.broken_undo == ""}
        state["progress"] |= {"phase": "done", "note": self.undo_note}
        return web.json_response(state)

    async def _confirm(self, request: web.Request) -> web.Response:
        if (missing := self._found(request)) is not None:
            return missing
        state = self._kept(request)
        if state is not None and self.broken_confirm != "controller":
            state["kept_until"] = None
        match self.broken_confirm:
            case "answer" | "controller":
                _drop(request)
            case "answer, forever":
                self.refusals |= {"transfer": (503, "AGENT_UNAVAILABLE", "The agent of shop.db does not answer.")}
                _drop(request)
            case "agent":
                return problem(503, "AGENT_UNAVAILABLE", "The agent of shop.db went away.")
            case "hold":
                await asyncio.Event().wait()
        return web.json_response({"confirmed": True})

    def _kept(self, request: web.Request) -> State | None:
        """The import that is confirmed, as it is asked for from now on."""
        found = self._named(request)
        kept = (found or {}).get("description", {}).get("kept")
        if kept is None or request.query.get("transfer_id", "") != kept["transfer_id"]:
            return None
        return self.states.setdefault(kept["transfer_id"], dict(kept))

    async def _transfer(self, request: web.Request) -> web.Response:
        state = self.states.get(request.match_info["transfer"])
        if state is None or self.forgets_transfers:
            return problem(404, "TRANSFER_NOT_FOUND", "No transfer has this id.")
        is_third = self.requests.count("transfer") == 3
        if self.broken_undo == "fail slowly":
            state["result"] = None if is_third else "succeeded"
        elif self.broken_undo.endswith("slowly") and is_third:
            state["undone"] = True
        return web.json_response(state)

    async def _cancel(self, request: web.Request) -> web.Response:
        transfer_id = request.match_info["transfer"]
        state = self.states.get(transfer_id)
        if self.holds_cancel:
            await asyncio.Event().wait()
        if state is None:
            return problem(404, "TRANSFER_NOT_FOUND", "No transfer has this id.")
        if not self.can_cancel:
            state["progress"]["phase"] = "restoring"
            if self.swap_result == "succeeded":
                finish_import(state, is_dry_run=False)
            elif self.swap_result:
                fail(state, "APP_UNAVAILABLE", "The server went away. Nothing was changed.")
                state["result"] = self.swap_result
            return problem(409, "TRANSFER_IN_PROGRESS", "The swap has begun.")
        self.cancelled.append(transfer_id)
        if state["result"]:
            return web.json_response(state)
        fail(state, "CANCELLED", "The transfer was cancelled.")
        state["result"] = "cancelled"
        return web.json_response(state)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        state = self.states.get(request.match_info["transfer"])
        if state is None:
            return problem(404, "TRANSFER_NOT_FOUND", "No transfer has this id.")
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        while True:
            await answer.write(b"event: state\nid: 1\ndata: " + json.dumps(state).encode() + b"\n\n")
            if state["result"]:
                return answer
            await asyncio.sleep(0.05)

    def _named(self, request: web.Request) -> State | None:
        return next((found for found in self.apps if found["id"] == request.match_info["id"]), None)

    def _found(self, request: web.Request) -> web.Response | None:
        if self._named(request) is None:
            return problem(404, "APP_NOT_FOUND", f"There is no app {request.match_info['id']}.")
        return None


def app(app_id: str, *, recipe: str = "postgresql", **description: Any) -> State:
    """A healthy app; `description` changes what its agent says."""
    workspace, name = app_id.split(".")
    formats = [
        {"name": "sql.gz", "media_type": "application/gzip", "suffix": ".sql.gz", "description": "SQL, compressed"},
        {"name": "sql", "media_type": "application/sql", "suffix": ".sql", "description": "SQL"},
    ]
    return {
        "id": app_id,
        "workspace": workspace,
        "name": name,
        "recipe": recipe,
        "is_available": True,
        "obstacle": "",
        "description": {
            "engine": recipe,
            "engine_version": "17.10",
            "export_formats": formats,
            "can_export": True,
            "can_import": True,
            "can_undo": True,
            "estimated_bytes": 150_000_000,
            "warnings": [],
            "running": None,
            "kept": None,
            **description,
        },
    }


def running(transfer_id: str, kind: str, *, total_bytes: int = 0) -> State:
    """A transfer that has begun."""
    progress = {"phase": "transferring", "read_bytes": 0, "sent_bytes": 0, "total_bytes": total_bytes, "note": ""}
    return {
        "transfer_id": transfer_id,
        "kind": kind,
        "progress": progress,
        "result": None,
        "end": None,
        "error": None,
        "started_at": "2026-11-23T17:00:00Z",
        "ended_at": None,
        "preview": None,
        "kept_until": None,
        "undone": False,
    }


def fail(state: State, reason: str, message: str) -> None:
    state |= {"result": "failed", "error": {"reason": reason, "message": message, "next_step": ""}}
    state["progress"] |= {"phase": "done"}


def finish_import(state: State, *, is_dry_run: bool) -> None:
    preview = {
        "changes": ["2 tables, 40,000 rows; 1 table is new"],
        "counts_after": {"tables": 2},
        "items": {"tables": {"added": 1, "removed": 0, "changed": 0, "same": 1, "not_compared": 0}},
        "bridging": "Written by PostgreSQL 18, read by 13.",
        "room_bytes": 5 << 20,
        "swap_seconds": 2,
        "import_seconds": 75,
    }
    state |= {"result": "succeeded", "preview": preview, "ended_at": "2026-11-23T17:00:12Z"}
    state["progress"] |= {"phase": "staged" if is_dry_run else "done"}
    if not is_dry_run:
        state["kept_until"] = "2026-11-30T17:00:12Z"


def problem(status: int, reason: str, text: str) -> web.Response:
    body = {"status": status, "title": reason, "detail": text, "reason": reason, "next_step": ""}
    return web.json_response(body, status=status, content_type="application/problem+json")


def _drop(request: web.Request) -> None:
    """End the connection as a crash does."""
    if request.transport is not None:
        request.transport.abort()
