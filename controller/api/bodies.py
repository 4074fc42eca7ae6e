"""A file inside a request: the whole body, or the one part of a form. Read in pieces, never spooled."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Mapping
from typing import Protocol, TypeVar

from aiohttp import BodyPartReader, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.multipart import content_disposition_filename, parse_content_disposition

from common.errors import InvalidRequestError, UploadIncompleteError
from controller.api.digests import expected_digests
from controller.api.keys import LIMITS
from controller.api.problems import EncodingNotSupportedError
from mathison.data.v1.transfer_pb2 import ArchiveHeader

SEND_AGAIN = "Send the file again."
_PLAIN_ENCODINGS = frozenset({"", "identity", "binary", "8bit", "7bit"})
_UNTELLING_TYPES = frozenset({"", "application/octet-stream", "application/x-www-form-urlencoded"})
_Result = TypeVar("_Result")


class Body(Protocol):
    """Where the file is in the request.

    Every method raises UploadIncompleteError when the request is cut or its sender falls silent.
    """

    expected_digests: list[str]
    """SHA-256 in hex that the sender announced; complete once `open` has returned."""

    async def open(self) -> ArchiveHeader:
        """What is known of the file before its first byte."""

    async def read(self, size: int) -> bytes:
        """The next bytes, at most so many; empty at the file's end."""

    async def finish(self) -> None:
        """Returns once the request is known to have been complete, too."""


class RawBody:
    """The body is the file."""

    def __init__(self, request: web.Request, *, stalled_seconds: float) -> None:
        self.expected_digests = expected_digests(request.headers, "Repr-Digest", "Content-Digest")
        self._request = request
        self._stalled_seconds = stalled_seconds

    async def open(self) -> ArchiveHeader:
        header = _header(self._request.headers)
        header.size_bytes = self._request.content_length or 0
        return header

    async def read(self, size: int) -> bytes:
        return await _patiently(self._request.content.read(size), self._stalled_seconds)

    async def finish(self) -> None:
        pass  # HTTP's own framing has ended, or `read` would have raised


class FormBody:
    """The file is the only part of a multipart form, under the name `file`."""

    def __init__(self, request: web.Request, *, stalled_seconds: float) -> None:
        if "Content-Digest" in request.headers:
            raise InvalidRequestError(
                "The Content-Digest of a form covers more than the file.", next_step="Send Repr-Digest of the file."
            )
        self.expected_digests = expected_digests(request.headers, "Repr-Digest")
        self._request = request
        self._stalled_seconds = stalled_seconds

    async def open(self) -> ArchiveHeader:
        try:
            self._form = await self._request.multipart()
        except (ValueError, AssertionError) as failure:
            raise InvalidRequestError("The form's Content-Type has no boundary.") from failure
        try:
            part = await _patiently(self._form.next(), self._stalled_seconds)
        except RuntimeError as failure:  # aiohttp 3.14.5, of a field `_charset_` that names none
            raise InvalidRequestError("The form's character set is none.") from failure
        if not isinstance(part, BodyPartReader) or part.name != "file":
            raise InvalidRequestError(
                "The form's first part has to be the file, under the name 'file'.",
                next_step="Give options as query parameters: option.<name>=<value>.",
            )
        refuse_encodings(part.headers)
        self._part = part
        self.expected_digests += expected_digests(part.headers, "Repr-Digest", "Content-Digest")
        return _header(part.headers)

    async def read(self, size: int) -> bytes:
        return await _patiently(self._part.read_chunk(max(size, 4096)), self._stalled_seconds)

    async def finish(self) -> None:
        if await _patiently(self._form.next(), self._stalled_seconds) is not None:
            raise InvalidRequestError("The form has more than its one part 'file'.")


async def refuse_body(request: web.Request, *parameters: str) -> None:
    """For routes whose parameters are all in the query: what stood in a body would go unseen.

    Args:
        parameters: what the route takes, for the text.
    Raises:
        InvalidRequestError: there is a body, and it is not empty.
        UploadIncompleteError: one was announced, and did not come.
    """
    stalled_seconds = request.app[LIMITS].stalled_caller_seconds
    begin = await _patiently(request.content.read(1), stalled_seconds) if request.can_read_body else b""
    if begin:
        raise InvalidRequestError(
            "This takes no body.",
            next_step=f"Leave it out, and give parameters in the query: {', '.join(parameters)}.",
        )


def refuse_encodings(headers: Mapping[str, str]) -> None:
    """Raises EncodingNotSupportedError for a body or part that would have to be decoded."""
    for name in (hdrs.CONTENT_ENCODING, hdrs.CONTENT_TRANSFER_ENCODING):
        encoding = headers.get(name, "")
        if encoding.lower() not in _PLAIN_ENCODINGS:
            raise EncodingNotSupportedError(
                f"{name} {encoding!r} is not taken.",
                next_step="Send the file as it is; a compressed file is recognised by its content.",
            )


def _header(headers: Mapping[str, str]) -> ArchiveHeader:
    _, parameters = parse_content_disposition(headers.get(hdrs.CONTENT_DISPOSITION))
    name = _text(content_disposition_filename(parameters) or "")
    media_type = _text(headers.get(hdrs.CONTENT_TYPE, "")).partition(";")[0].strip().lower()
    return ArchiveHeader(
        file_name=re.split(r"[/\\]", name)[-1][:255],
        media_type="" if media_type in _UNTELLING_TYPES else media_type[:255],
    )


def _text(value: str) -> str:
    """With a "?" for each byte that is no UTF-8: aiohttp makes surrogates of those, which no message can hold."""
    return value.encode(errors="replace").decode()


async def _patiently(reading: Awaitable[_Result], stalled_seconds: float) -> _Result:
    try:
        async with asyncio.timeout(stalled_seconds):
            return await reading
    except TimeoutError:
        raise UploadIncompleteError(
            f"The caller sent nothing for {stalled_seconds:.0f} seconds.", next_step=SEND_AGAIN
        ) from None
    except (web.RequestPayloadError, ConnectionError) as failure:
        raise UploadIncompleteError("The upload was cut.", next_step=SEND_AGAIN) from failure
    except (ValueError, HttpProcessingError) as failure:  # what aiohttp's form reader raises
        raise UploadIncompleteError(
            "The form is malformed or ends before its closing boundary.", next_step=SEND_AGAIN
        ) from failure
