"""Every Redis and Valkey starts, asks for its password, keeps its data over a kill, and is gone afterwards."""

from __future__ import annotations

import socket
from pathlib import Path

import psutil
import pytest
from redis import AuthenticationError

from tests.fixtures.redis_servers import StartRedis, client_of
from tools.servers import REDIS_NAMES, RedisServer, ServerStartError, redis


@pytest.mark.parametrize("name", REDIS_NAMES)
def test_every_release_answers_and_asks_for_a_password(name: str, start_redis: StartRedis) -> None:
    server = start_redis(name, password="secret")

    with client_of(server) as caller:
        info = caller.info("server")
    with client_of(server, password="") as stranger, pytest.raises(AuthenticationError):
        stranger.get("x")

    assert server.install.version in (info["redis_version"], info.get("valkey_version"))


def test_a_killed_server_starts_again_on_the_same_port_with_what_was_saved(start_redis: StartRedis) -> None:
    server = start_redis("valkey-8.1", settings={"appendonly": "yes", "appendfsync": "always"})
    port = server.port
    with client_of(server) as caller:
        caller.set("kept", "7")

    server.kill()
    server.start()

    assert server.port == port
    with client_of(server) as caller:
        assert caller.get("kept") == b"7"


def test_a_server_with_tls_takes_nothing_else(start_redis: StartRedis) -> None:
    server = start_redis("redis-7.0", tls=True)

    with client_of(server) as caller:
        assert caller.ping()
    with socket.create_connection((server.host, server.port), timeout=5) as plain:
        plain.sendall(b"PING\r\n")
        with pytest.raises(ConnectionResetError):
            plain.recv(64)


def test_a_wrong_setting_fails_with_the_servers_own_words() -> None:
    with pytest.raises(ServerStartError, match="no-such-setting"):
        RedisServer(redis("redis-7.0"), settings={"no-such-setting": "1"}).__enter__()


def test_nothing_is_left_of_a_closed_server() -> None:
    with RedisServer(redis("valkey-9.1")) as server:
        process, folder = psutil.Process(server.pid), server.directory

    assert not process.is_running()
    assert not Path(folder).exists()
