"""Errors as answers: the only place where a reason becomes an HTTP status (RFC 9457, application/problem+json)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from common import errors
from common.errors import InternalError, InvalidRequestError, ServiceError
from controller.api.keys import ERROR, TRANSFER_HEADER, TRANSFER_ID

_log = structlog.get_logger(__name__)

RETRY_AFTER_SECONDS = 5
_TYPE = "https://data.mathison.io/errors/"


class HttpVersionTooOldError(InvalidRequestError):
    """HTTP/1.0 ends a body by closing the connection, so its clients could not tell a broken download from a whole."""


class EncodingNotSupportedError(InvalidRequestError):
    """A body with a Content-Encoding: unpacking is the agent's, which does it in a jail."""


class ExpectationNotMetError(InvalidRequestError):
    """An Expect header that asks for more than to be asked for the body."""


STATUS_BY_ERROR: dict[type[ServiceError], int] = {
    errors.InvalidRequestError: 400,
    errors.FormatNotSupportedError: 400,
    errors.UploadIncompleteError: 400,
    errors.DigestMismatchError: 400,
    errors.NotAuthenticatedError: 401,
    errors.NotPermittedError: 403,
    errors.AppNotFoundError: 404,
    errors.TransferNotFoundError: 404,
    errors.TransferInProgressError: 409,
    errors.NothingToUndoError: 409,
    errors.AppMustStopError: 409,
    errors.SourceUnreadableError: 409,
    errors.LimitExceededError: 413,
    EncodingNotSupportedError: 415,
    ExpectationNotMetError: 417,
    errors.ArchiveWrongKindError: 422,
    errors.ArchiveTruncatedError: 422,
    errors.ArchiveDamagedError: 422,
    errors.ArchiveRefusedError: 422,
    errors.ArchiveIncompatibleError: 422,
    errors.CancelledError: 499,
    errors.InternalError: 500,
    errors.ToolFailedError: 502,
    errors.AppUnavailableError: 503,
    errors.AppBusyError: 503,
    errors.AgentUnavailableError: 503,
    HttpVersionTooOldError: 505,
    errors.NoSpaceError: 507,
}


def problem(error: ServiceError, *, transfer_id: str = "") -> web.Response:
    """The answer that an error is."""
    content: dict[str, Any] = {
        "type": _TYPE + error.reason.lower().replace("_", "-"),
        "title": error.reason.replace("_", " ").capitalize(),
        "status": STATUS_BY_ERROR[type(error)],
        "detail": error.text,
        "reason": error.reason,
        "next_step": error.next_step,
    }
    headers: dict[str, str] = {}
    if transfer_id:
        content["transfer_id"] = headers[TRANSFER_HEADER] = transfer_id
    if content["status"] == HTTPStatus.SERVICE_UNAVAILABLE:
        headers[hdrs.RETRY_AFTER] = str(RETRY_AFTER_SECONDS)
    if content["status"] == HTTPStatus.UNAUTHORIZED:
        headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
    return _answer(content, headers)


def raw_problem(error: ServiceError) -> bytes:
    """The same as bytes on the wire, for a connection that is given to no server."""
    answer = problem(error)
    body = bytes(answer.body) if isinstance(answer.body, bytes | bytearray) else b""
    lines = [
        f"HTTP/1.1 {answer.status} {answer.reason}",
        *(f"{name}: {value}" for name, value in answer.headers.items()),
    ]
    lines += [f"Content-Length: {len(body)}", "Connection: close"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@web.middleware
async def answer_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Around every handler. One that has begun a streamed answer deals with its errors itself."""
    try:
        return await handler(request)
    except web.HTTPException as refusal:  # aiohttp's own: no such route, no such method
        return refused(refusal)
    except ServiceError as failure:
        error = failure
    except Exception:
        _log.exception("A request has failed by a fault of ours.", action="answer_request", path=request.path)
        error = InternalError("Something went wrong in the controller; its log has the cause.")
    request[ERROR] = error
    answer = problem(error, transfer_id=request.get(TRANSFER_ID, ""))
    if request.can_read_body:
        answer.force_close()  # aiohttp reads and drops the body for 10 s, so that the answer is seen, then closes
    return answer


def refused(refusal: web.HTTPException) -> web.Response:
    """aiohttp's own refusals, without their text, which may quote the request."""
    headers: dict[str, str] = {hdrs.ALLOW: refusal.headers[hdrs.ALLOW]} if hdrs.ALLOW in refusal.headers else {}
    content = {
        "type": "about:blank",
        "title": refusal.reason,
        "status": refusal.status,
        "detail": "There is nothing like this here.",
        "reason": InvalidRequestError.reason,
        "next_step": "Look at the list of routes in docs/errors.md.",
    }
    return _answer(content, headers)


def _answer(content: dict[str, Any], headers: dict[str, str]) -> web.Response:
    return web.Response(
        status=content["status"],
        reason=content["title"],  # 499 has none of its own
        body=msgspec.json.encode(content),
        content_type="application/problem+json",
        headers={hdrs.CACHE_CONTROL: "no-store", **headers},
    )
