"""A typed client for the controller's REST API: one method a route, answers as values, problems as typed errors.

A download's end is proven by its HTTP framing only so far as this hop goes; whoever calls `export` still has to compare
size and SHA-256 with `transfer`.
"""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec

from cli.failures import UnreachableError, UsageError
from cli.models import App, AppFingerprint, AppList, Problem, TransferList, TransferState
from common.errors import (
    ERRORS_BY_REASON,
    AppNotFoundError,
    InternalError,
    InvalidRequestError,
    NotAuthenticatedError,
    NotPermittedError,
    ServiceError,
)

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 60.0
"""For questions that are answered from what is known; whatever moves or drops data has no limit of time."""
READ_BUFFER_BYTES = 1 << 20
"""aiohttp's 64 KiB cost a third of the throughput of a download."""
_Answer = TypeVar("_Answer")


class ConnectionLostError(UnreachableError):
    """The connection broke after it stood; what became of the request is not known."""


@dataclass(frozen=True)
class Connection:
    """Where the controller is and how to be let in."""

    url: str
    """Without a slash at its end; http or https."""
    token: str = ""
    """A secret; empty: none is sent."""
    ca_file: Path | None = None
    """Certificates to trust instead of the system's."""


@dataclass
class Download:
    """An export whose headers have arrived. `chunks` raises ConnectionLostError unless the body ended properly."""

    file_name: str
    chunks: AsyncIterator[bytes]


class Controller:
    """One controller. An async context manager that holds the connections."""

    def __init__(self, connection: Connection) -> None:
        self._url = connection.url.rstrip("/")
        self._has_token = bool(connection.token)
        headers = {"Accept-Encoding": "identity"}
        if connection.token:
            headers["Authorization"] = f"Bearer {connection.token}"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=_trust(connection), socket_factory=_socket),
            headers=headers,
            auto_decompress=False,
            read_bufsize=READ_BUFFER_BYTES,
        )

    async def __aenter__(self) -> Controller:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._session.close()

    async def apps(self) -> tuple[App, ...]:
        """All apps that the caller may see."""
        return (await self._ask("GET", "/api/deployments", AppList)).deployments

    async def app(self, app_id: str) -> App:
        """One app with its description; AppNotFoundError."""
        return await self._ask("GET", _app_path(app_id), App)

    async def fingerprint(self, app_id: str) -> AppFingerprint:
        """Of the app's content now; takes as long as reading all of it."""
        return await self._ask("GET", f"{_app_path(app_id)}/fingerprint", AppFingerprint, answer_seconds=None)

    async def transfers(self, app_id: str) -> tuple[TransferState, ...]:
        """What the app's agent remembers, latest first."""
        return (await self._ask("GET", f"{_app_path(app_id)}/transfers", TransferList)).transfers

    async def transfer(self, transfer_id: str) -> TransferState:
        """One transfer now; TransferNotFoundError."""
        return await self._ask("GET", _transfer_path(transfer_id), TransferState)

    async def cancel(self, transfer_id: str) -> TransferState:
        """End a transfer; TransferInProgressError when its swap has begun."""
        return await self._ask("DELETE", _transfer_path(transfer_id), TransferState, answer_seconds=None)

    async def undo(self, app_id: str, transfer_id: str) -> TransferState:
        """Put back the data from before an import, the last one where the id is empty; returns when that is done."""
        query = {"transfer_id": transfer_id} if transfer_id else None
        path = f"{_app_path(app_id)}/undo-import"
        return await self._ask("POST", path, TransferState, query=query, answer_seconds=None)

    async def confirm(self, app_id: str, transfer_id: str) -> bool:
        """Drop the data from before an import, the last one where the id is empty; False when there was none."""
        query = {"transfer_id": transfer_id} if transfer_id else None
        path = f"{_app_path(app_id)}/confirm-import"
        return (await self._ask("POST", path, _Confirmed, query=query, answer_seconds=None)).confirmed

    async def watch(self, transfer_id: str) -> AsyncGenerator[TransferState, None]:
        """The transfer's state each time it changes, until it is over; ends early when the connection breaks."""
        async with self._request("GET", f"{_transfer_path(transfer_id)}/events", answer_seconds=None) as answer:
            data = b""
            with contextlib.suppress(aiohttp.ClientError):
                async for line in answer.content:
                    if line.startswith(b"data:"):
                        data += line[5:].strip()
                    elif not line.strip() and data:
                        yield _decode(data, TransferState, self._url)
                        data = b""

    @contextlib.asynccontextmanager
    async def export(
        self, app_id: str, *, transfer_id: str, format: str, options: Mapping[str, str]
    ) -> AsyncGenerator[Download, None]:
        """Begin an export; returns once its first byte is about to come. Leaving the context early drops it."""
        query = {f"option.{name}": value for name, value in options.items()}
        if format:
            query["format"] = format
        async with self._request(
            "POST",
            f"{_app_path(app_id)}/export-data",
            query=query,
            headers={"Mathison-Transfer": transfer_id},
            answer_seconds=None,
        ) as answer:
            disposition = answer.content_disposition
            yield Download(
                file_name=(disposition.filename if disposition else None) or "",
                chunks=self._chunks(answer),
            )

    async def import_(
        self,
        app_id: str,
        body: AsyncIterator[bytes],
        *,
        transfer_id: str,
        file_name: str,
        size_bytes: int | None,
        digest: bytes | None,
        options: Mapping[str, str],
        is_dry_run: bool,
    ) -> TransferState:
        """Send an archive and wait until it is imported.

        Args:
            size_bytes: what `body` yields in all; None where that is not known.
            digest: its SHA-256, likewise.
        Raises:
            ConnectionLostError: the connection broke, on the way up or while waiting; `transfer` may know more.
        """
        query = {f"option.{name}": value for name, value in options.items()}
        if is_dry_run:
            query["dry_run"] = "true"
        headers = {
            "Mathison-Transfer": transfer_id,
            "Content-Type": "application/octet-stream",
            "Content-Disposition": f"attachment; filename*=UTF-8''{_quoted(file_name)}",
        }
        if size_bytes is not None:
            headers["Content-Length"] = str(size_bytes)
        if digest is not None:
            headers["Repr-Digest"] = f"sha-256=:{base64.b64encode(digest).decode()}:"
        return await self._ask(
            "POST",
            f"{_app_path(app_id)}/import-data",
            TransferState,
            query=query,
            headers=headers,
            body=body,
            answer_seconds=None,
        )

    async def _ask(
        self,
        method: str,
        path: str,
        shape: type[_Answer],
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: AsyncIterator[bytes] | None = None,
        answer_seconds: float | None = ANSWER_SECONDS,
    ) -> _Answer:
        async with self._request(
            method, path, query=query, headers=headers, body=body, answer_seconds=answer_seconds
        ) as answer:
            try:
                return _decode(await answer.read(), shape, self._url)
            except (aiohttp.ClientError, TimeoutError) as failure:
                raise self._lost(failure) from failure

    @contextlib.asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: AsyncIterator[bytes] | None = None,
        answer_seconds: float | None,
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        """A request up to its answer's headers; anything but success is raised as a typed error."""
        try:
            answer = await self._session.request(
                method,
                self._url + path,
                params=query,
                headers=headers,
                data=body,
                # The controller asks for the body once it has let the import through, so a refusal costs no upload.
                expect100=body is not None,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=answer_seconds, sock_connect=CONNECT_SECONDS),
            )
        except aiohttp.ClientConnectorError as failure:
            raise self._unreachable(failure) from failure
        except aiohttp.InvalidURL as failure:
            raise UsageError(
                f"{self._url} is not an address.", next_step="It looks like http://host:8080."
            ) from failure
        except TimeoutError as failure:
            raise UnreachableError(
                f"The controller at {self._url} did not answer in time.", next_step=_REACH_STEP
            ) from failure
        except aiohttp.ClientError as failure:
            raise self._lost(failure) from failure
        try:
            if answer.status >= 300:
                raise await self._problem(answer)
            yield answer
        finally:
            answer.close()

    async def _chunks(self, answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        try:
            async for chunk in answer.content.iter_any():
                yield chunk
        except (aiohttp.ClientError, TimeoutError) as failure:
            raise self._lost(failure) from failure

    async def _problem(self, answer: aiohttp.ClientResponse) -> Exception:
        """The error that an answer means: the controller's own reason, or what a status says about a stranger's."""
        text = b""
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            text = await answer.content.read(1 << 16)
        if answer.content_type == "application/problem+json":
            with contextlib.suppress(msgspec.MsgspecError):
                problem = msgspec.json.decode(text, type=Problem)
                if problem.reason == InvalidRequestError.reason and answer.status in (404, 405):
                    return UnreachableError(
                        f"The controller at {self._url} has no {answer.method} {answer.url.raw_path}.",
                        next_step="Give its address without a path; if it has none, it may be of another version.",
                    )
                return _from_problem(problem, answer.status, has_token=self._has_token)
        if answer.status in (401, 403):
            kind = NotAuthenticatedError if answer.status == 401 else NotPermittedError
            return kind(f"{self._url} does not let this request in.", next_step=_SIGN_IN_STEP)
        if answer.status < 400:
            target = answer.headers.get("Location", "elsewhere")
            return UnreachableError(f"{self._url} redirects to {target}.", next_step="Give that address as --url.")
        return UnreachableError(
            f"{self._url} answered with status {answer.status} and not as a controller of Mathison Data does.",
            next_step=_REACH_STEP,
        )

    def _unreachable(self, failure: aiohttp.ClientConnectorError) -> UnreachableError:
        match failure:
            case aiohttp.ClientConnectorCertificateError() as refused:
                cause = refused.certificate_error
                said = getattr(cause, "verify_message", "") or type(cause).__name__
                return UnreachableError(
                    f"{self._url} could not prove who it is: {said.rstrip('.')}.",
                    next_step="Check the address, and name the certificate that signed the controller's by --ca-file "
                    "or MATHISON_CA_FILE.",
                )
            case aiohttp.ClientConnectorSSLError():
                said = getattr(failure.os_error, "reason", "") or "handshake failed"
                return UnreachableError(
                    f"There is no speaking TLS with {self._url} ({said.lower().replace('_', ' ')}).",
                    next_step="If the controller serves plain HTTP there, its address begins with http://.",
                )
            case aiohttp.ClientConnectorDNSError():
                return UnreachableError(f"The host name in {self._url} is not known.", next_step=_REACH_STEP)
            case _:
                # asyncio puts the address into strerror; the number alone says what happened.
                number = failure.os_error.errno
                said = os.strerror(number).lower() if number else "no connection"
                return UnreachableError(f"No controller answers at {self._url} ({said}).", next_step=_REACH_STEP)

    def _lost(self, failure: Exception) -> ConnectionLostError:
        step = _REACH_STEP
        is_unanswered = isinstance(failure, aiohttp.ServerDisconnectedError | aiohttp.ClientResponseError)
        if is_unanswered and self._url.startswith("http:"):
            step += " If it serves HTTPS, its address begins with https://."
        return ConnectionLostError(f"The connection to {self._url} broke.", next_step=step)


class _Confirmed(msgspec.Struct, frozen=True):
    confirmed: bool = True


_REACH_STEP = "See that the controller runs, and give its address by --url or MATHISON_URL."
_SIGN_IN_STEP = "Name a file with an API token by --token-file or MATHISON_TOKEN_FILE."
_RENEW_STEP = "Whoever runs the controller makes a new one with `mathison-controller token create`."
_LISTS_STEP = "`mathison apps` lists those that this token may see."


def _from_problem(problem: Problem, status: int, *, has_token: bool) -> ServiceError:
    kind = ERRORS_BY_REASON.get(problem.reason)
    if kind is None:
        text = problem.detail or problem.title or f"The controller answered with status {status}."
        return InternalError(text, next_step=problem.next_step)
    next_step = problem.next_step
    if kind is NotAuthenticatedError:
        next_step = _RENEW_STEP if has_token else _SIGN_IN_STEP
    elif kind is AppNotFoundError:
        next_step = _LISTS_STEP
    return kind(problem.detail or problem.title, next_step=next_step)


def _decode(text: bytes, shape: type[_Answer], url: str) -> _Answer:
    try:
        # Not strict: numbers of 64 bits may come as strings, as protobuf's JSON has them.
        return msgspec.json.decode(text, type=shape, strict=False)
    except msgspec.MsgspecError as failure:
        raise UnreachableError(
            f"{url} does not answer as a controller of Mathison Data does ({failure}).", next_step=_REACH_STEP
        ) from failure


def _app_path(app_id: str) -> str:
    return f"/api/deployments/{_quoted(app_id)}"


def _transfer_path(transfer_id: str) -> str:
    return f"/api/transfers/{_quoted(transfer_id)}"


def _quoted(text: str) -> str:
    """For a URL; with a "?" for each byte of an argument or file name that is no UTF-8."""
    return quote(text, safe="", errors="replace")


def _trust(connection: Connection) -> ssl.SSLContext | bool:
    if connection.ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=str(connection.ca_file))
    except OSError as failure:
        said = "no certificate is in it" if isinstance(failure, ssl.SSLError) else str(failure.strerror).lower()
        raise UsageError(
            f"The CA file {connection.ca_file} cannot be used: {said}.",
            next_step="It has to be a readable file with certificates in PEM.",
        ) from failure


def _socket(address: Any) -> socket.socket:
    """A socket that notices within two minutes that the other side's machine has gone."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 6)):
        if hasattr(socket, name):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return made
