"""The two gRPC servers put together: mutual TLS for programs and for agents that renew, plain TLS for enrolment."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from common.addresses import Address
from controller.buffers import GRPC_OPTIONS
from controller.identity.own import OwnIdentity
from controller.interceptors import CallInterceptor, Permission, enrolment_permission, mutual_tls_permission
from controller.servicers import data_controller, enrolment
from controller.servicers.data_controller import DataControllerServicer
from controller.servicers.enrolment import EnrolmentServicer
from mathison.data.v1 import enrolment_pb2_grpc

_OPTIONS = (
    *GRPC_OPTIONS,
    ("grpc.so_reuseport", 0),  # two controllers on one port would each get half of the calls
    # A caller that vanished without a word is noticed within a minute.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.ping_timeout_ms", 20_000),  # else 60 s, whatever keepalive says (grpcio 1.85.1)
    ("grpc.http2.max_pings_without_data", 0),
    # Callers may ask for signs of life, too.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
)


class GrpcServer:
    """One port, with the standard health service and reflection besides its own services."""

    def __init__(
        self, address: Address, credentials: grpc.ServerCredentials, may_call: Permission, *, services: Sequence[str]
    ) -> None:
        self.server = grpc.aio.server(interceptors=[CallInterceptor(may_call)], options=_OPTIONS)
        self._address = address
        self._credentials = credentials
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.server)
        reflection.enable_server_reflection([*services, health.SERVICE_NAME, reflection.SERVICE_NAME], self.server)

    async def start(self) -> Address:
        """Open the port and serve; returns the address with the port that was chosen. OSError: it cannot be had."""
        try:
            port = self.server.add_secure_port(str(self._address), self._credentials)
        except RuntimeError as failure:
            raise OSError(f"{self._address} cannot be listened on; another program may do so") from failure
        await self.server.start()
        return Address(self._address.host, port)

    async def stop(self, *, grace_seconds: float) -> None:
        """Take no new calls; running ones may go on for so long."""
        await self._health.enter_graceful_shutdown()
        await self.server.stop(grace_seconds)


def program_server(
    address: Address, identity: OwnIdentity, data: DataControllerServicer, enrolling: EnrolmentServicer
) -> GrpcServer:
    """For programs, and for agents that renew: callers need a certificate of our CA."""
    made = GrpcServer(
        address,
        identity.server_credentials(requires_client_certificate=True),
        mutual_tls_permission,
        services=[data_controller.SERVICE, enrolment.SERVICE],
    )
    data.add_to(made.server)
    enrolment_pb2_grpc.add_EnrolmentServicer_to_server(enrolling, made.server)
    return made


def enrolment_server(address: Address, identity: OwnIdentity, enrolling: EnrolmentServicer) -> GrpcServer:
    """For agents that have no certificate yet."""
    made = GrpcServer(
        address,
        identity.server_credentials(requires_client_certificate=False),
        enrolment_permission,
        services=[enrolment.SERVICE],
    )
    enrolment_pb2_grpc.add_EnrolmentServicer_to_server(enrolling, made.server)
    return made
