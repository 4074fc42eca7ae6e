"""What belongs to an object, on its way from one server's answer into a request to another.

A MinIO takes it from headers and from the query, as presigned requests have it there. The query has room for more than
headers have, and for bytes that no header of a request may hold. So they came to a server, or with a form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from agent.engines.minio.portable.encoded_words import decoded
from agent.engines.minio.portable.form import ENCRYPTED, KEPT_HEADERS, METADATA_PREFIXES, STORAGE_CLASS, Line, is_text

_GIVEN = frozenset(name for name in KEPT_HEADERS if not name.startswith("x-amz-object-lock-"))
"""Locks are left out: what is locked cannot be deleted, and so not be taken back."""
_CLASS = "REDUCED_REDUNDANCY"
_MOST_AS_HEADERS_BYTES = 2048
"""MinIO takes no more metadata in headers; of all headers 8 KiB, those of the request itself among them."""
_MOST_BYTES, _MOST_IN_QUERY_BYTES = 128 << 10, 32 << 10
"""Of all, which are three times as much where they are escaped, and a request's line is to be below 1 MiB; of one."""
_PATH_SEPARATORS = re.compile(rb"[/\\]")
_SPACE = b"\t\n\v\f\r \x85\xa0"


def in_words(headers: Mapping[str, str]) -> dict[str, str]:
    """Metadata that a MinIO may have put into other words, as it would have stored it.

    Args:
        headers: of an answer, by their names in lower case.
    """
    metadata = {name: value for name, value in headers.items() if name.startswith(METADATA_PREFIXES)}
    return {name: text for name, value in metadata.items() if (text := decoded(value)) != value}


def keep(line: Line, headers: Mapping[str, str]) -> None:
    """Note in a line what belongs to the object, of headers as in `in_words`."""
    line.headers, line.raw_headers = {}, {}
    for name, value in headers.items():
        is_kept = name in KEPT_HEADERS or name.startswith(METADATA_PREFIXES)
        if not is_kept or _is_foreign_class(name, value):
            continue
        if is_text(value):
            line.headers[name] = value
        else:
            line.raw_headers[name] = value.encode(errors="surrogateescape")


def given(line: Line) -> tuple[dict[str, str], dict[str, str]]:
    """What a MinIO is given with an object: headers, and a part of the query."""
    wanted = {
        name.lower(): value
        for name, value in line.all_headers().items()
        if (name.lower() in _GIVEN or name.lower().startswith(METADATA_PREFIXES))
        and not _is_foreign_class(name.lower(), value)
    }
    as_query = {name.lower() for name in line.raw_headers} & wanted.keys()
    # At the ends of a header they mean nothing.
    as_query |= {name for name, value in wanted.items() if value != value.strip(" \t")}
    if _size({name: wanted[name] for name in wanted.keys() - as_query}) > _MOST_AS_HEADERS_BYTES:
        # Encryption is not looked for there.
        as_query |= {name for name, value in wanted.items() if name != ENCRYPTED and not _is_refused_in_query(value)}
    return (
        {name: value for name, value in wanted.items() if name not in as_query},
        {_as_stored(name): value for name, value in wanted.items() if name in as_query},
    )


def obstacle(line: Line) -> str:
    """Why a MinIO cannot be given what belongs to an object, as what it has; empty: it can."""
    headers, query = given(line)
    for name, value in query.items():
        if _is_refused_in_query(value):
            return (
                f"a header {name.lower()} of more than {_MOST_IN_QUERY_BYTES} bytes, or one that is no text, with `.` "
                "or `..` between slashes"
            )
    if _size(headers) > _MOST_AS_HEADERS_BYTES or _size(query) > _MOST_BYTES:
        return f"headers of more than {_MOST_BYTES} bytes, or long ones with `.` or `..` between slashes"
    return ""


def _is_foreign_class(name: str, value: str) -> bool:
    """A storage class that a MinIO refuses, as another server may have, or that it does not keep: the standard."""
    return name == STORAGE_CLASS and value != _CLASS


def _size(headers: dict[str, str]) -> int:
    return sum(len(name.encode()) + len(value.encode(errors="surrogateescape")) for name, value in headers.items())


def _is_refused_in_query(value: str) -> bool:
    """MinIO takes each value there for a path that could lead out of its drive."""
    raw = value.encode(errors="surrogateescape")
    return len(raw) > _MOST_IN_QUERY_BYTES or any(
        part.strip(_SPACE) in (b".", b"..") for part in _PATH_SEPARATORS.split(raw)
    )


def _as_stored(name: str) -> str:
    """A name in the case in which MinIO keeps that of a header; that in a query it keeps as it is."""
    return "-".join(part.capitalize() for part in name.split("-"))
