"""A server that takes connections and hangs."""

from __future__ import annotations

import asyncio
import socket

import pytest

from agent.engines.redis import connection
from agent.engines.redis.connection import ConnectionLostError, Login, connect


@pytest.mark.parametrize("password", ["", "secret"])
async def test_a_server_that_never_says_anything_is_given_up_early(
    password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "FIRST_ANSWER_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        login = Login("127.0.0.1", silent.getsockname()[1], password=password)

        with pytest.raises(ConnectionLostError, match="did not answer"):
            async with asyncio.timeout(20), connect(login) as opened:
                await opened.call("PING")
