"""Whose a service account is, read from the file in which MinIO keeps it on its drive."""

from __future__ import annotations

from pathlib import PurePosixPath

import msgspec

from agent.engines.minio.drive.comparing import ACCOUNTS
from agent.engines.minio.drive.layout import CONFIG, META

_DIRECTORY, _FILE = ACCOUNTS["service_accounts"]


class _Credentials(msgspec.Struct, rename="camel"):
    parent_user: str = ""


class _Identity(msgspec.Struct):
    credentials: _Credentials


def service_account_of(path: str) -> str:
    """The name of the one whose file it is, by its path below a drive; empty: it is another file."""
    if not PurePosixPath(path).match(f"{CONFIG}/iam/{_DIRECTORY}/*/{_FILE}/{META}"):
        return ""
    return PurePosixPath(path).parts[-3]


def parent_in(content: bytes) -> str:
    """Whose it is, by the content of such a file; empty: a KMS has encrypted it, or it cannot be read."""
    try:
        return msgspec.json.decode(content, type=_Identity).credentials.parent_user
    except (msgspec.DecodeError, ValueError):
        return ""
