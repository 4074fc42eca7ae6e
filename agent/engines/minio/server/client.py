"""Calls of S3 and of MinIO's admin API. A refusal is an error that names the call and what the server said.

The one fact to know: while the server is frozen it answers only calls with the header that BYPASS holds (of any value).
A PUT would store that header with the object, so it goes with calls that store nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import ssl
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from yarl import URL

from agent.engines.minio.server.signing import EMPTY_SHA256, Account, path_of, query_of, signed_headers
from agent.engines.minio.server.slim_aiohttp import aiohttp
from common.errors import AppUnavailableError, ToolFailedError

BYPASS = {"x-amz-meta-minio-object-perf": "1"}
ANSWER_SECONDS = 60.0
"""For calls that return little."""
_MAX_ANSWER_BYTES = 64 << 20
_MOST_HEADER_BYTES, _MOST_HEADERS = 1 << 20, 1 << 14
"""Of an answer: an object's metadata may have more than web pages' headers do."""
_UNREADABLE = ("SlowDownRead", "SlowDownWrite")
"""MinIO's way to say that an object is damaged, for ever, and that a drive takes nothing."""
_NOT_NOW = (429, 499, 503)
"""429: more calls at once than it is set to take. A server that restarts ends the requests it has with 499, "client
disconnected", although the clients are there."""
_SERVER_STATUS = "x-minio-server-status"
_ADMIN = "/minio/admin/v3/"
_DENIED, _DISABLED = "AccessDenied", "disabled"
_REFUSED_CREDENTIALS = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "XMinioAdminInvalidAccessKey")


class RefusedError(ToolFailedError):
    """The server answered with an error.

    Attributes:
        status: of HTTP.
        s3_code: the server's word for it, for example "NoSuchBucket".
    """

    def __init__(self, what: str, *, status: int, s3_code: str, message: str) -> None:
        said = " ".join(part for part in (s3_code, message[:300]) if part) or "no reason"
        super().__init__(f"MinIO refused {what} with status {status}: {said}")
        self.status = status
        self.s3_code = s3_code


class NotReadyError(AppUnavailableError):
    """The server answers, and cannot serve this call now.

    Attributes:
        lacks: what it says of itself, for example "bucket-metadata-offline"; empty: nothing.
    """

    def __init__(self, what: str, *, lacks: str, said: str) -> None:
        reason = " ".join(part for part in (lacks, said) if part) or "no reason"
        super().__init__(f"MinIO is not ready to answer {what}: {reason}")
        self.lacks = lacks


class RootDeniedError(AppUnavailableError):
    """The credentials are root's, and the server does not serve root: its configuration says so."""


class UnreadableAnswerError(AppUnavailableError):
    """What the server answers is no HTTP, or has more or other headers than HTTP allows.

    Attributes:
        said: the reason, without an end.
    """

    def __init__(self, url: str, said: str) -> None:
        super().__init__(f"What answers at {url} cannot be understood: {said}.")
        self.said = said


def parse_xml(text: bytes) -> ET.Element:
    """An answer of S3; ToolFailedError when it is none."""
    try:
        return ET.fromstring(text)  # noqa: S314  # the app's own server; expat bounds what entities expand to
    except ET.ParseError as failure:
        raise ToolFailedError("MinIO answered with something that is not XML.") from failure


def text_of(element: ET.Element, name: str) -> str:
    """The text of a child, whatever its namespace; empty when there is none."""
    return next((child.text or "" for child in element if child.tag.rpartition("}")[2] == name), "")


@dataclass(frozen=True)
class Answer:
    """What a call returned."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> object:
        """The body; ToolFailedError when it is none."""
        try:
            return json.loads(self.body)
        except ValueError as failure:
            raise ToolFailedError("MinIO answered an admin call with something that is not JSON.") from failure


class Client:
    """Calls one server as one user."""

    def __init__(self, account: Account, session: aiohttp.ClientSession) -> None:
        self.account = account
        self._session = session

    async def call(
        self,
        method: str,
        bucket: str = "",
        key: str = "",
        *,
        path: str = "",
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        seconds: float = ANSWER_SECONDS,
    ) -> Answer:
        """A call with a small answer.

        Raises:
            RefusedError: the server said no.
            AppUnavailableError: it does not answer, or not in time, or does not accept the credentials.
        """
        try:
            async with asyncio.timeout(seconds):
                async with self.open(
                    method, bucket, key, path=path, query=query, headers=headers, body=body
                ) as response:
                    content = await response.content.read(_MAX_ANSWER_BYTES)
                    while more := await response.content.read(_MAX_ANSWER_BYTES):
                        content += more
                        if len(content) > _MAX_ANSWER_BYTES:
                            raise ToolFailedError(f"MinIO's answer to {method} {path or bucket} is too long.")
                    return Answer(response.status, dict(response.headers), content)
        except TimeoutError as failure:
            raise AppUnavailableError(
                f"MinIO did not answer {method} {path or '/' + bucket} within {seconds:.0f} seconds."
            ) from failure
        except aiohttp.ClientError as failure:
            raise AppUnavailableError(f"MinIO broke off its answer: {failure}.") from failure

    async def admin(
        self,
        method: str,
        name: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        seconds: float = ANSWER_SECONDS,
    ) -> Answer:
        """A call of the admin API, version 3; raises as `call`."""
        return await self.call(method, path=f"{_ADMIN}{name}", query=query, body=body, seconds=seconds)

    @asynccontextmanager
    async def open(
        self,
        method: str,
        bucket: str = "",
        key: str = "",
        *,
        path: str = "",
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | AsyncIterator[bytes] = b"",
        body_bytes: int | None = None,
        body_sha256: str = "",
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A call whose answer is read within the block; without a time limit.

        Args:
            body_bytes, body_sha256: of a body that comes in pieces.
        Raises:
            As `call`, before the block is entered.
        """
        path = path or path_of(bucket, key)
        raw_query = query_of(query or {})
        if isinstance(body, bytes):
            body_sha256 = hashlib.sha256(body).hexdigest() if body else EMPTY_SHA256
        signed = signed_headers(
            self.account, method, path, query=raw_query, headers=headers or {}, payload_sha256=body_sha256
        )
        signed.pop("host")
        if body_bytes is not None:
            signed["content-length"] = str(body_bytes)
        url = URL(f"{self.account.url}{path}{'?' + raw_query if raw_query else ''}", encoded=True)
        try:
            request = await self._session.request(
                method,
                url,
                headers=signed,
                # In a file: aiohttp does not like large bodies as they are.
                data=(io.BytesIO(body) if isinstance(body, bytes) else body) if body else None,
                skip_auto_headers=("content-type", "user-agent", "accept-encoding"),
                allow_redirects=False,
            )
        except aiohttp.ClientResponseError as failure:
            said = " ".join(failure.message.split())[:200].rstrip(".")
            raise UnreadableAnswerError(self.account.url, said) from failure
        except (aiohttp.ClientError, OSError) as failure:
            raise AppUnavailableError(
                f"MinIO does not answer at {self.account.url}: {_reason_of(failure)}.",
                next_step="See that the server runs, and that `url` in the agent's settings is where.",
            ) from failure
        async with request as response:
            if response.status >= 300:
                raise _refused(f"{method} {path}", response, await response.content.read(1 << 20))
            yield response


@asynccontextmanager
async def connected(account: Account, tls: ssl.SSLContext | None) -> AsyncIterator[Client]:
    """A client with connections of its own, closed afterwards."""
    connector = aiohttp.TCPConnector(limit=32, ssl=tls if tls is not None else True)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
    async with aiohttp.ClientSession(
        connector=connector,
        timeout=timeout,
        auto_decompress=False,
        max_field_size=_MOST_HEADER_BYTES,
        max_headers=_MOST_HEADERS,
    ) as session:
        yield Client(account, session)


def _reason_of(failure: aiohttp.ClientError | OSError) -> str:
    if isinstance(failure, aiohttp.ClientConnectorError) and (number := failure.os_error.errno):
        # What aiohttp says of it names a kind of TLS whatever the address is.
        return os.strerror(number)
    return str(failure) or type(failure).__name__


def _refused(what: str, response: aiohttp.ClientResponse, body: bytes) -> ToolFailedError | AppUnavailableError:
    code, message = _said(body)
    is_denied = code == _DENIED or (code in _REFUSED_CREDENTIALS and _DISABLED in message)
    if is_denied and _ADMIN in what and response.headers.get("Server") == "MinIO":
        return RootDeniedError(
            f"MinIO does not serve root, and so not the agent ({code}): its configuration says so.",
            next_step="See `api root_access` and `policy_plugin` in its configuration; with "
            "MINIO_API_ROOT_ACCESS=on in its environment, MinIO started again serves root.",
        )
    if code in _REFUSED_CREDENTIALS:
        return AppUnavailableError(
            f"MinIO does not accept the agent's root credentials ({code}).",
            next_step="See that `user` and `password_file` in the agent's settings are those of the server's root.",
        )
    if response.status in _NOT_NOW and code not in _UNREADABLE:
        return NotReadyError(what, lacks=response.headers.get(_SERVER_STATUS, ""), said=f"{code} {message}".strip())
    return RefusedError(what, status=response.status, s3_code=code, message=message)


def _said(body: bytes) -> tuple[str, str]:
    """Code and message of an error's body, which is XML or JSON."""
    try:
        found = parse_xml(body)
        return text_of(found, "Code"), text_of(found, "Message")
    except ToolFailedError:
        pass
    try:
        said = json.loads(body)
        return str(said.get("Code", "")), str(said.get("Message", ""))
    except (ValueError, AttributeError):
        return "", body[:200].decode(errors="replace")
