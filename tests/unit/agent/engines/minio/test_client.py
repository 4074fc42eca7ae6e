"""What a server's refusals are taken for, as MinIO gives them."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from agent.engines.minio.server.client import NotReadyError, RefusedError, connected
from agent.engines.minio.server.signing import Account
from common.errors import AppUnavailableError, ServiceError


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (499, "ClientDisconnected", NotReadyError),
        (503, "XMinioServerNotInitialized", NotReadyError),
        (503, "RequestTimeout", NotReadyError),
        (429, "TooManyRequests", NotReadyError),
        (503, "SlowDownRead", RefusedError),
        (403, "AccessDenied", AppUnavailableError),
        (404, "NoSuchKey", RefusedError),
    ],
)
async def test_a_server_that_cannot_answer_now_is_told_from_one_that_says_no(
    status: int, code: str, kind: type[ServiceError]
) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, text=f"<Error><Code>{code}</Code><Message>of the test</Message></Error>")

    app = web.Application()
    app.router.add_get("/things/key", answer)
    async with (
        TestServer(app) as server,
        connected(Account(str(server.make_url("")).rstrip("/"), "root", "password"), None) as client,
    ):
        with pytest.raises(kind, match=code):
            await client.call("GET", "things", "key")
