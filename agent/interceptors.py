"""What happens around every call: who calls, what is answered when it fails, and one line in the log.

The only place that calls `context.abort`: that raises a plain Exception, and whoever caught it by accident would run on
after the answer.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, NoReturn

import grpc
import structlog

from common.credentials import CLIENT_URI_PREFIX, CONTROLLER_URI
from common.errors import InternalError, NotPermittedError, ServiceError, make_error
from common.status import status_code, trailing_metadata

Context = grpc.aio.ServicerContext[Any, Any]
OPEN_SERVICE = "/grpc.health.v1.Health/"
"""Anybody with a certificate of the authority may ask whether we are well."""
_MOST_TEXT_BYTES = 2048
"""An error's text travels twice in the trailing metadata, of which a gRPC client takes 8 KiB; beyond that it would see
RESOURCE_EXHAUSTED instead of the error."""
_MOST_DETAILS_BYTES = 512
_log = structlog.get_logger(__name__)


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler; those of health and reflection too."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler: Any = await continuation(handler_call_details)
        if handler is None:
            return None
        kind = f"{_arity(handler.request_streaming)}_{_arity(handler.response_streaming)}"
        wrap = _many_answers if handler.response_streaming else _one_answer
        wrapped: grpc.RpcMethodHandler[Any, Any] = handler._replace(
            response_serializer=_unless_encoded(handler.response_serializer),
            **{kind: wrap(handler_call_details.method, getattr(handler, kind))},
        )
        return wrapped


def _arity(is_streaming: bool) -> str:
    return "stream" if is_streaming else "unary"


def _unless_encoded(serialize: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    """An answer that is bytes is encoded already, as an export's chunks are."""
    return lambda answer: answer if isinstance(answer, bytes) else serialize(answer)


def _one_answer(method: str, handle: Any) -> Callable[[Any, Context], Awaitable[Any]]:
    async def call(request: Any, context: Context) -> Any:
        async with _logged(_Call(method, request, context)) as current, _answering(current):
            current.check_caller()
            return await handle(request, context)

    return call


def _many_answers(method: str, handle: Any) -> Callable[[Any, Context], Awaitable[None]]:
    """A coroutine that writes, not a generator: gRPC leaves a generator whose call was cancelled to the garbage
    collector, while here it is closed before the call is over."""

    async def call(request: Any, context: Context) -> None:
        async with _logged(_Call(method, request, context)) as current:
            async with _answering(current):
                current.check_caller()
                answers = handle(request, context)
                if not hasattr(answers, "__aiter__"):
                    await answers  # it writes by itself, as the health service does
                    return
            async with aclosing(answers):
                is_writing = False
                try:
                    async for answer in answers:
                        is_writing = True
                        await context.write(answer)
                        is_writing = False
                        del answer  # a chunk, as in agent.exports
                except Exception as failure:
                    if is_writing:
                        raise  # the call is gone; gRPC knows
                    await _answer(current, failure)

    return call


class _Call:
    """One call, for the log."""

    def __init__(self, method: str, request: Any, context: Context) -> None:
        self.method = method
        self.context = context
        self.call_id = secrets.token_hex(4)
        self.transfer_id: str = getattr(request, "transfer_id", "")
        self.caller = caller_of(context)
        self.code = grpc.StatusCode.OK
        self.error: ServiceError | None = None

    def check_caller(self) -> None:
        if self.method.startswith(OPEN_SERVICE) or self.caller == CONTROLLER_URI:
            return
        if not self.caller.startswith(CLIENT_URI_PREFIX):
            raise NotPermittedError(
                f"The caller's certificate ({self.caller or 'without a name'}) is not one for calling agents.",
                next_step="Call through the controller, or with a client certificate that it has made.",
            )


def caller_of(context: Context) -> str:
    """The URI in the caller's certificate, which TLS has checked against the authority; empty when it has none."""
    names = list(context.auth_context().get("peer_spiffe_id", ()))
    return names[0].decode() if len(names) == 1 else ""


@asynccontextmanager
async def _answering(call: _Call) -> AsyncIterator[None]:
    """Answer with a status for whatever is raised inside."""
    try:
        yield
    except Exception as failure:
        await _answer(call, failure)


async def _answer(call: _Call, failure: Exception) -> NoReturn:
    if isinstance(failure, grpc.aio.AbortError):
        raise failure
    if isinstance(failure, ServiceError):
        await _abort(call, failure)
    _log.error("A call ended with a fault.", action="call", method=call.method, exc_info=failure)
    await _abort(call, InternalError(f"A fault of the agent; its log has the cause under call {call.call_id}."))


async def _abort(call: _Call, error: ServiceError) -> NoReturn:
    call.code, call.error = status_code(error), error
    short = make_error(
        error.reason, shortened(error.text, _MOST_TEXT_BYTES), next_step=shortened(error.next_step, _MOST_DETAILS_BYTES)
    )
    details = shortened(error.text, _MOST_DETAILS_BYTES)
    await call.context.abort(call.code, details, trailing_metadata(short))


def shortened(text: str, most_bytes: int) -> str:
    """The text, with its middle left out where it is longer than so many bytes of UTF-8."""
    content = text.encode()
    if len(content) <= most_bytes:
        return text
    half = most_bytes // 2 - 4
    return content[:half].decode(errors="ignore") + " … " + content[-half:].decode(errors="ignore")


@asynccontextmanager
async def _logged(call: _Call) -> AsyncIterator[_Call]:
    structlog.contextvars.bind_contextvars(call_id=call.call_id)
    if call.transfer_id:
        structlog.contextvars.bind_contextvars(transfer_id=call.transfer_id)
    began_at = time.monotonic()
    try:
        yield call
    except asyncio.CancelledError:
        call.code = grpc.StatusCode.CANCELLED
        raise
    finally:
        error = call.error
        cause = error.__cause__ if error is not None else None
        (_log.debug if call.method.startswith(OPEN_SERVICE) else _log.info)(
            "A call has ended.",
            action="call",
            method=call.method,
            caller=call.caller,
            code=call.code.name,
            reason=error.reason if error else None,
            error=error.text if error else None,
            cause=f"{type(cause).__name__}: {cause}" if cause else None,
            seconds=round(time.monotonic() - began_at, 3),
        )
