"""The gRPC server put together: DataAgent, health and reflection behind mutual TLS."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from agent.interceptors import CallInterceptor
from agent.servicers.data_agent import DataAgentServicer
from common.credentials import IdentityFiles
from mathison.data.v1 import agent_pb2, agent_pb2_grpc

SERVICE = agent_pb2.DESCRIPTOR.services_by_name["DataAgent"].full_name
MESSAGE_BYTES = 4 << 20
"""gRPC's own default, said aloud: a frame has at most 2 MiB."""
MOST_CALLS = 64
"""At once. Transfers run one at a time; the others only watch."""
OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    # A second agent on the same port has to fail, not to share it.
    ("grpc.so_reuseport", 0),
    # Room for one chunk on the way; gRPC would measure the line and grow this to several MiB, which a line between two
    # pods does not need (1 MiB a round trip of 1 ms is 1 GB/s).
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 1 << 20),
    # A caller that vanished without closing is noticed within a minute, also while nothing flows.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)


class AgentServer:
    """Owns the port."""

    def __init__(self, servicer: DataAgentServicer, identity: IdentityFiles) -> None:
        self._server = grpc.aio.server(
            interceptors=[CallInterceptor()], options=OPTIONS, maximum_concurrent_rpcs=MOST_CALLS
        )
        self._health = health.aio.HealthServicer()
        self._identity = identity
        agent_pb2_grpc.add_DataAgentServicer_to_server(servicer, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            [SERVICE, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME],
            self._server,
        )

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
