"""Ports of 127.0.0.1 that stay ours until a program of ours listens on them.

A configuration names the address of a program that does not run yet, and restarts use it again; a port that is only
looked up could be taken in between.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack


class ReservedPorts:
    """Holds each port by a socket that is bound and never listens.

    Nobody else gets such a port by chance, neither for listening nor for an outgoing connection, but a program that
    sets SO_REUSEADDR, as gRPC and asyncio do, may listen on it (Linux: inet_csk_bind_conflict).
    """

    def __init__(self) -> None:
        self._sockets = ExitStack()

    def reserve(self) -> int:
        """Another port."""
        holder = self._sockets.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        number: int = holder.getsockname()[1]
        return number

    def close(self) -> None:
        """Give them all back."""
        self._sockets.close()
