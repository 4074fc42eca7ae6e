"""Who asks: the token in `Authorization`, and one line in the log for each request."""

from __future__ import annotations

import time

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from controller.api.keys import ADMISSION, CALLER, ERROR, TRANSFER_ID

_log = structlog.get_logger(__name__)
_OPEN_PATHS = frozenset({"/healthz", "/readyz"})


@web.middleware
async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every path but those of health needs a caller, also one that does not exist."""
    if request.path not in _OPEN_PATHS:
        request[CALLER] = request.app[ADMISSION].admit(
            request.headers.get(hdrs.AUTHORIZATION, ""), remote_address=request.remote or ""
        )
    return await handler(request)


@web.middleware
async def log_requests(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Without the query, which may hold what a person typed."""
    if request.path in _OPEN_PATHS:
        return await handler(request)
    began_at = time.monotonic()
    status = 0  # the caller left, or the answer was broken off
    try:
        answer = await handler(request)
        status = answer.status
        return answer
    finally:
        caller, error = request.get(CALLER), request.get(ERROR)
        _log.info(
            "A request has been answered." if status else "A caller has left.",
            action="answer_request",
            method=request.method,
            path=request.path,
            status=status,
            caller=caller.name if caller is not None else None,
            remote=request.remote,
            transfer_id=request.get(TRANSFER_ID),
            reason=error.reason if error is not None else None,
            error=error.text if error is not None else None,
            cause=str(error.__cause__) if error is not None and error.__cause__ is not None else None,
            seconds=round(time.monotonic() - began_at, 3),
        )
