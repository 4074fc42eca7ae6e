"""The controller's own certificate, for its ports and for calling agents."""

from __future__ import annotations

import threading

import grpc

from common.credentials import Identity
from controller.clock import Clock, utc_now
from controller.identity.ca import CertificateAuthority


class OwnIdentity:
    """A key and certificate made in memory at each start and made anew when two thirds of it are over.

    It is asked for at each handshake, by gRPC's threads too, so a renewal needs no restart and no task.
    """

    def __init__(self, authority: CertificateAuthority, *, clock: Clock = utc_now) -> None:
        self._authority = authority
        self._clock = clock
        self._lock = threading.Lock()
        self._identity = authority.issue_controller()

    def current(self) -> Identity:
        with self._lock:
            if self._clock() >= self._identity.renew_at():
                self._identity = self._authority.issue_controller()
            return self._identity

    def server_credentials(self, *, requires_client_certificate: bool) -> grpc.ServerCredentials:
        """For a port of our own; a renewed certificate is used from the next connection on."""
        served = self.current()

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            nonlocal served
            identity = self.current()
            if identity is served:
                return None
            served = identity
            return identity.server_configuration()

        return grpc.dynamic_ssl_server_credentials(
            served.server_configuration(),
            fetch,  # type: ignore[arg-type]  # None is documented: "no change"; the stubs lack it
            require_client_authentication=requires_client_certificate,
        )
