"""A key tried by a child on secrets of n8n's; see fitting_child.py."""

from __future__ import annotations

import msgspec

from agent.engines.n8n.fits import Fit, Request
from agent.engines.n8n.secret_rows import Credential, WrappedKey
from agent.jail import PARSER
from agent.processes import Command, run
from common.errors import InternalError


async def fit_of_rows(wrapped: list[WrappedKey], credentials: list[Credential], key: str) -> Fit:
    """Try a key on rows that were read already."""
    if not wrapped and not credentials:
        return Fit()
    request = Request(wrapped, credentials, key)
    command = Command(["agent.engines.n8n.fitting_child"], jail=PARSER, is_module=True)
    try:
        return msgspec.msgpack.decode(await run(command, input_bytes=msgspec.msgpack.encode(request)), type=Fit)
    except msgspec.DecodeError as failure:
        raise InternalError("The child that tries a key gave an answer that is none.") from failure
