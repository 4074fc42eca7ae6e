"""The ids of transfers, which their callers choose."""

from __future__ import annotations

import re

from common.errors import InvalidRequestError

_TRANSFER_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def check_transfer_id(transfer_id: str) -> str:
    """The id itself; InvalidRequestError when it has other characters, or too many."""
    if not _TRANSFER_ID.fullmatch(transfer_id):
        raise InvalidRequestError("A transfer's id has 1 to 64 characters of A-Z, a-z, 0-9, '_' and '-'.")
    return transfer_id
