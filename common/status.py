"""A ServiceError as a gRPC status with google.rpc details, and back. The only place where either is done."""

from __future__ import annotations

from collections.abc import Iterable

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from common.errors import AgentUnavailableError, InternalError, ServiceError, make_error

ERROR_DOMAIN = "data.mathison.io"
DETAILS_KEY = "grpc-status-details-bin"
_LOST_PEER = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
)


def status_code(error: ServiceError) -> grpc.StatusCode:
    """The code of the status that the error becomes."""
    return grpc.StatusCode[error.code.name]


def trailing_metadata(error: ServiceError) -> tuple[tuple[str, str | bytes], ...]:
    """The error's google.rpc.Status as trailing metadata, as grpc.aio's `context.abort` takes it."""
    number: int = status_code(error).value[0]
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=ERROR_DOMAIN)
    if error.next_step:
        info.metadata["next_step"] = error.next_step
    detail = any_pb2.Any()
    detail.Pack(info)
    status = status_pb2.Status(code=number, message=error.text, details=[detail])
    return ((DETAILS_KEY, status.SerializeToString()),)


def error_from_call(failed: grpc.aio.AioRpcError, *, peer: str) -> ServiceError:
    """The error that the other side meant.

    Args:
        peer: who was called, for the text of an error that has no details, for example "the agent of shop.db".
    Returns:
        The typed error where the status carries our details, which whatever the peer itself answers does; otherwise
        AgentUnavailableError for what gRPC says of a peer that cannot be reached or went away (INTERNAL and UNKNOWN
        among it: a connection reset in mid-stream), and InternalError for anything else.
    """
    metadata: Iterable[tuple[str, str | bytes]] = failed.trailing_metadata() or ()
    for key, value in metadata:
        if key == DETAILS_KEY and isinstance(value, bytes):
            status = status_pb2.Status.FromString(value)
            for detail in status.details:
                info = error_details_pb2.ErrorInfo()
                if detail.Is(info.DESCRIPTOR) and detail.Unpack(info) and info.domain == ERROR_DOMAIN:
                    meant = make_error(info.reason, status.message, next_step=info.metadata.get("next_step", ""))
                    if isinstance(meant, AgentUnavailableError):
                        meant.is_refusal = True
                    return meant
    if failed.code() in _LOST_PEER:
        return AgentUnavailableError(
            f"{peer} does not answer or went away.", next_step="See whether the app and its agent run, then try again."
        )
    return InternalError(f"{peer} answered {failed.code().name}.")
