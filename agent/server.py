"""The gRPC server put together: DataAgent, health and reflection behind mutual TLS."""

from __future__ import annotations

from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from agent.interceptors import CallInterceptor
from agent.servicers.data_agent import SERVICE, DataAgentServicer
from common.credentials import IdentityFiles
from common.frames import UPLOAD_CHUNK_BYTES

_HEALTH = "grpc.health.v1.Health"
_REFLECTION = "grpc.reflection.v1alpha.ServerReflection"
MESSAGE_BYTES = 4 << 20
"""gRPC's own default, said aloud: a frame has at most 2 MiB."""
MOST_CALLS = 64
"""At once. Transfers run one at a time; the others only watch."""
OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    # A second agent on the same port has to fail, not to share it.
    ("grpc.so_reuseport", 0),
    # Room for one chunk of an upload on the way; gRPC would measure the line and grow this to several MiB, which a line
    # between two pods does not need (256 KiB a round trip of 1 ms is 250 MB/s).
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", UPLOAD_CHUNK_BYTES),
    # A caller that vanished without closing is noticed within a minute, also while nothing flows.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)


class _Reflection(grpc.GenericRpcHandler):
    """What can be asked here, for grpcurl and its like; loaded when one of them asks, which may be never."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        if handler_call_details.method != f"/{_REFLECTION}/ServerReflectionInfo":
            return None
        from grpc_reflection.v1alpha import reflection, reflection_pb2

        servicer = reflection.aio.ReflectionServicer([SERVICE, _HEALTH, _REFLECTION])
        handler: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(
            servicer.ServerReflectionInfo,
            request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
            response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
        return handler


class AgentServer:
    """Owns the port."""

    def __init__(self, servicer: DataAgentServicer, identity: IdentityFiles) -> None:
        self._server = grpc.aio.server(
            interceptors=[CallInterceptor()], options=OPTIONS, maximum_concurrent_rpcs=MOST_CALLS
        )
        self._health = health.aio.HealthServicer()
        self._identity = identity
        servicer.add_to(self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._server.add_generic_rpc_handlers([_Reflection()])

    async def start(self, address: str) -> int:
        """Serve; returns the port.

        Args:
            address: host:port, port 0 for any free one.
        Raises:
            RuntimeError: the port cannot be had.
            ValueError: there is no usable certificate.
        """
        port = self._server.add_secure_port(address, self._identity.server_credentials())
        for service in ("", SERVICE):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        await self._server.start()
        return port

    async def refuse_new_calls(self) -> None:
        """Tell load balancers and probes; calls are still answered until `stop`."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace_seconds: float) -> None:
        """No new calls; those that run have the grace period to end."""
        await self._server.stop(grace_seconds)
