"""What surrounds each gRPC call: whose certificate may make it, errors turned into statuses, one line in the log.

`context.abort` raises a plain Exception, so it is called here only, after the handler has ended.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc
import structlog

from common.credentials import AGENT_URI_PREFIX, CLIENT_URI_PREFIX
from common.errors import InternalError, NotPermittedError, ServiceError
from common.status import status_code, trailing_metadata

_log = structlog.get_logger(__name__)

_HEALTH = "/grpc.health.v1.Health/"
_REFLECTION = "/grpc.reflection."
_ENROL = "/mathison.data.v1.Enrolment/Enrol"
_RENEW = "/mathison.data.v1.Enrolment/Renew"

Context = grpc.aio.ServicerContext[Any, Any]
Permission = Callable[[str, frozenset[str]], bool]
"""Given a method and the URIs in the caller's certificate: whether it may be called."""


def mutual_tls_permission(method: str, uris: frozenset[str]) -> bool:
    """On the port with client certificates: an agent may renew, a client may do the rest, both may see the health."""
    if method.startswith(_HEALTH):
        return bool(uris)
    prefix = AGENT_URI_PREFIX if method == _RENEW else CLIENT_URI_PREFIX
    return any(uri.startswith(prefix) for uri in uris)


def enrolment_permission(method: str, uris: frozenset[str]) -> bool:
    """On the port without client certificates there is nothing but the first enrolment."""
    return method == _ENROL or method.startswith((_HEALTH, _REFLECTION))


def certificate_uris(context: Context) -> frozenset[str]:
    """The URIs in the caller's certificate; empty where there is none."""
    facts: Mapping[str, Any] = context.auth_context()
    names: list[bytes] = facts.get("x509_subject_alternative_name", [])
    return frozenset(name.decode("ascii", "replace") for name in names)


class CallInterceptor(grpc.aio.ServerInterceptor):
    """One for each port."""

    def __init__(self, may_call: Permission) -> None:
        self._may_call = may_call

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler: Any = await continuation(handler_call_details)
        if handler is None:
            return None  # gRPC answers UNIMPLEMENTED
        method = handler_call_details.method
        kind = f"{_arity(handler.request_streaming)}_{_arity(handler.response_streaming)}"
        behaviour = getattr(handler, kind)

        async def answer(request: Any, context: Context) -> Any:
            async with self._answering(method, context):
                return await behaviour(request, context)

        async def stream(request: Any, context: Context) -> None:
            # Writes instead of yielding: a generator whose call is cancelled is left to the garbage collector by gRPC.
            async with self._answering(method, context), aclosing(behaviour(request, context)) as messages:
                async for message in messages:
                    await context.write(message)

        chosen = stream if inspect.isasyncgenfunction(behaviour) else answer
        wrapped: grpc.RpcMethodHandler[Any, Any] = handler._replace(**{kind: chosen})
        return wrapped

    @asynccontextmanager
    async def _answering(self, method: str, context: Context) -> AsyncIterator[None]:
        began_at = time.monotonic()
        peer = context.peer()  # now: after the call has ended this crashes the process (grpcio 1.85.1)
        outcome = "OK"
        error: ServiceError | None = None
        try:
            if not self._may_call(method, certificate_uris(context)):
                raise NotPermittedError(f"This certificate may not call {method}.")
            yield
        except asyncio.CancelledError:
            outcome = "CANCELLED"
            raise
        except grpc.aio.AbortError:
            outcome = "ABORTED"  # the standard services answer by themselves
            raise
        except Exception as failure:
            error = failure if isinstance(failure, ServiceError) else _fault(failure, method)
            outcome = error.reason
            await context.abort(status_code(error), error.text, trailing_metadata(error))
        finally:
            if not method.startswith(_HEALTH):
                _log.info(
                    "A call has ended.",
                    action="answer_call",
                    method=method,
                    outcome=outcome,
                    error=error.text if error is not None else None,
                    cause=str(error.__cause__) if error is not None and error.__cause__ is not None else None,
                    peer=peer,
                    seconds=round(time.monotonic() - began_at, 3),
                )


def _arity(is_streaming: bool) -> str:
    return "stream" if is_streaming else "unary"


def _fault(failure: Exception, method: str) -> InternalError:
    _log.error("A call has failed by a fault of ours.", action="answer_call", method=method, exc_info=failure)
    return InternalError("Something went wrong in the controller; its log has the cause.")
