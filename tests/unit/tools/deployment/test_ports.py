from __future__ import annotations

import socket

from tools.deployment.ports import ReservedPorts


def test_a_reserved_port_is_given_to_nobody_else_by_chance() -> None:
    ports = ReservedPorts()
    mine = {ports.reserve() for _ in range(50)}

    others = set()
    sockets = [socket.socket() for _ in range(200)]
    for other in sockets:
        other.bind(("127.0.0.1", 0))
        others.add(other.getsockname()[1])
    for closed in sockets:
        closed.close()

    assert len(mine) == 50
    assert not mine & others
    ports.close()


def test_a_server_may_listen_on_a_reserved_port_again_and_again() -> None:
    ports = ReservedPorts()
    port = ports.reserve()

    for _ in range(2):
        # With SO_REUSEADDR, as asyncio and gRPC listen.
        with (
            socket.create_server(("127.0.0.1", port), reuse_port=False) as server,
            socket.create_connection(("127.0.0.1", port)) as client,
        ):
            accepted, _ = server.accept()
            with accepted:
                client.sendall(b"x")
                assert accepted.recv(1) == b"x"
    ports.close()
