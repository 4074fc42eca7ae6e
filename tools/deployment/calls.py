"""gRPC as a client with a certificate for debugging speaks it, without any part of the product's own client."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc

from common.credentials import TARGET_NAME_OPTION, agent_name, controller_name
from mathison.data.v1 import controller_pb2

_DESCRIBE_APP = "/mathison.data.v1.DataController/DescribeApp"


@dataclass(frozen=True)
class ClientFiles:
    """A client's identity, in PEM files."""

    authorities: Path
    certificate: Path
    key: Path

    def credentials(self) -> grpc.ChannelCredentials:
        """For a channel to controller or agents."""
        return grpc.ssl_channel_credentials(
            self.authorities.read_bytes(), self.key.read_bytes(), self.certificate.read_bytes()
        )


def controller_channel(address: str, client: ClientFiles) -> grpc.aio.Channel:
    """A channel to the controller's gRPC service."""
    return grpc.aio.secure_channel(address, client.credentials(), options=_options(controller_name()))


def agent_channel(address: str, app_id: str, client: ClientFiles) -> grpc.aio.Channel:
    """A channel to an app's agent."""
    return grpc.aio.secure_channel(address, client.credentials(), options=_options(agent_name(app_id)))


def describe_app(
    address: str, app_id: str, *, client: ClientFiles, token: str, timeout_seconds: float
) -> controller_pb2.DescribeAppResponse:
    """DataController.DescribeApp, blocking.

    Raises:
        grpc.RpcError: the controller or the agent does not answer.
    """
    with grpc.secure_channel(address, client.credentials(), options=_options(controller_name())) as channel:
        call = channel.unary_unary(
            _DESCRIBE_APP,
            request_serializer=controller_pb2.DescribeAppRequest.SerializeToString,
            response_deserializer=controller_pb2.DescribeAppResponse.FromString,
        )
        answer: controller_pb2.DescribeAppResponse = call(
            controller_pb2.DescribeAppRequest(app_id=app_id),
            metadata=(("authorization", f"Bearer {token}"),),
            timeout=timeout_seconds,
        )
        return answer


def _options(name: str) -> list[tuple[str, str | int]]:
    # A restarted program is met again at once, not after a minute of waiting longer and longer.
    return [(TARGET_NAME_OPTION, name), ("grpc.max_reconnect_backoff_ms", 500)]
