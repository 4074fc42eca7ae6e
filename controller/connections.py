"""The REST port's connections: how many there may be, how long one may be silent, what malformed HTTP is answered.

aiohttp itself waits an hour for a request's first line, takes any number of connections, and answers what its parser
refuses in plain text with the offending bytes, which may be the start of a token (aiohttp 3.14.5).
"""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from collections.abc import Callable
from typing import Any, cast

import structlog
from aiohttp import web
from aiohttp.http_exceptions import BadHttpMethod, LineTooLong

from common.errors import AgentUnavailableError, InternalError, InvalidRequestError, ServiceError
from controller.api.problems import problem, raw_problem, refused
from controller.settings import LimitSettings

READ_BUFFER_BYTES = 1 << 20
"""aiohttp's 64 KiB cost a third of an upload's speed."""
REFUSAL_SECONDS = 2.0
"""How long a connection too many is kept, so that its answer is read."""
_QUIET_SECONDS = 60.0
_log = structlog.get_logger(__name__)


class Site(web.BaseSite):
    """Like aiohttp's TCPSite, with a bound; the server's own connections are made here."""

    def __init__(self, runner: web.AppRunner, host: str, port: int, *, limits: LimitSettings, ssl: Any = None) -> None:
        super().__init__(runner, ssl_context=ssl)
        self._host = host
        self._port = port
        self._limits = limits
        self._most = most_connections(limits.rest_connections)

    @property
    def name(self) -> str:
        return f"{self._host}:{self._port}"

    async def start(self) -> None:
        await super().start()
        server = self._runner.server
        if server is None:
            raise RuntimeError("the runner was not set up")
        loop = asyncio.get_running_loop()

        def connection() -> asyncio.Protocol:
            return _Connection(
                server,
                loop=loop,
                keepalive_timeout=self._limits.idle_connection_seconds,
                read_bufsize=READ_BUFFER_BYTES,
                auto_decompress=False,
                access_log=None,  # type: ignore[arg-type]  # as AppRunner takes it
            )

        def door() -> asyncio.Protocol:
            return _Door(connection, has_room=lambda: len(server.connections) < self._most)

        self._server = await loop.create_server(
            door, self._host, self._port, ssl=self._ssl_context, backlog=self._backlog
        )


class _Connection(web.RequestHandler):
    """One connection; its keep-alive time runs from the connection's first moment, so it bounds a header's, too."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is answered to what is no HTTP, and to faults outside every handler. Says nothing of what came."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun already")
        error: ServiceError
        if status < 500:
            error = InvalidRequestError(_what_is_wrong(exc))
            # Without the error's text, which quotes the request.
            _log.info(
                "What came is no HTTP request.",
                action="answer_request",
                remote=request.remote,
                error=type(exc).__name__,
            )
        else:
            error = InternalError("Something went wrong in the controller; its log has the cause.")
            _log.error("A request has failed by a fault of ours.", action="answer_request", exc_info=exc)
        answer = problem(error)
        answer.force_close()
        return answer

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """What aiohttp refuses before any handler, for example an expectation, comes to no middleware."""
        if isinstance(resp, web.HTTPException):
            resp = refused(resp)
            resp.force_close()
        return await super().finish_response(request, resp, start_time)


def _what_is_wrong(refused: BaseException | None) -> str:
    match refused:
        case LineTooLong():
            return "A line of the request's header is too long."
        case BadHttpMethod():
            return "This is no HTTP, or its method is none that is known."
        case _:
            return "This is no HTTP."


class _Door(asyncio.Protocol):
    """A new connection: let in, or told that it is one too many.

    It is decided when the connection is there: the event loop accepts many at once and only then tells of each.
    """

    def __init__(self, connection: Callable[[], asyncio.Protocol], *, has_room: Callable[[], bool]) -> None:
        self._connection = connection
        self._has_room = has_room

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)
        if self._has_room():
            connection = self._connection()
            transport.set_protocol(connection)
            connection.connection_made(transport)
            return
        error = AgentUnavailableError("The controller has too many connections.", next_step="Try again in a moment.")
        transport.write(raw_problem(error))
        if transport.can_write_eof():
            transport.write_eof()
        # Closing at once would reset the connection below the answer when the request is not read yet.
        asyncio.get_running_loop().call_later(REFUSAL_SECONDS, transport.close)


class AcceptFaults:
    """The event loop's exception handler: a port that cannot accept is said once a minute, not at each attempt."""

    def __init__(self) -> None:
        self._said_at = -_QUIET_SECONDS

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not str(context.get("message", "")).startswith("socket.accept() out of system resource"):
            loop.default_exception_handler(context)
        elif time.monotonic() - self._said_at >= _QUIET_SECONDS:
            self._said_at = time.monotonic()
            _log.error(
                "No connection can be accepted for want of open files or memory; this is said once a minute.",
                action="accept",
                error=str(context.get("exception", "")),
                open_files=_open_files(),
            )


def most_connections(wanted: int) -> int:
    """Half of the files are for everything else: agents, programs, logs."""
    return max(1, min(wanted, _open_files() // 2))


def _open_files() -> int:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit
