"""The encryption key on its way in an archive: sealed with age, so that who finds the archive has no credentials."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from agent.engines.configured import without_line_end
from agent.engines.n8n.seals import Answer, Request
from agent.jail import Jail
from agent.processes import Command, run
from common.errors import InternalError, ToolFailedError, make_error


async def seal(secret: str, *, recipients: Sequence[str], passphrase: str) -> bytes:
    """An age file with the secret and a line end in it: `age -d` prints it.

    Args:
        recipients: age's public keys ("age1…"); where there are none, the passphrase counts.
    Raises:
        InvalidRequestError: a recipient is none.
    """
    content = f"{secret}\n".encode()
    return await _ask(Request(opens=False, content=content, recipients=list(recipients), passphrase=passphrase))


async def unseal(sealed: bytes, *, identities: Sequence[str], passphrase: str) -> str:
    """The secret in an age file.

    Raises:
        ArchiveIncompatibleError: neither the identities nor the passphrase open it.
        ArchiveDamagedError: it is no age file.
        InvalidRequestError: an identity is none.
    """
    opened = await _ask(Request(opens=True, content=sealed, identities=list(identities), passphrase=passphrase))
    return without_line_end(opened.decode(errors="replace"))


async def _ask(request: Request) -> bytes:
    command = Command(["agent.engines.n8n.sealing_child"], jail=Jail(may_fork=True), is_module=True)
    try:
        output = await run(command, input_bytes=msgspec.msgpack.encode(request))
    except ToolFailedError as failure:
        if not request.passphrase:
            raise
        raise ToolFailedError(
            f"The encryption key could not be worked on with a passphrase: {failure.text}",
            next_step="That takes 600 MiB of memory for a moment. Give the agent more, or use a recipient instead.",
        ) from failure
    try:
        answer = msgspec.msgpack.decode(output, type=Answer)
    except msgspec.DecodeError as failure:
        raise InternalError("The child that seals gave an answer that is none.") from failure
    if answer.reason:
        raise make_error(answer.reason, answer.text, next_step=answer.next_step)
    return answer.content
