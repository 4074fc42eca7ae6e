"""Who answers at an agent's address instead of the agent, for the person who has to put the settings right.

Asked only after a call could not connect: gRPC refuses a wrong certificate itself, and says whose it was in words only.
Nothing is sent and whoever answers is trusted with nothing: its certificate is read, and the connection ends.
"""

from __future__ import annotations

import asyncio
import ssl

import structlog

from common.addresses import Address
from common.credentials import AGENT_URI_PREFIX, agent_uri
from controller.discovery.inventory import App

_log = structlog.get_logger(__name__)

LOOK_SECONDS = 2.0
"""An address at which nobody answers refuses at once, or was waited for long enough by the call."""


async def stranger_at(app: App, authorities: bytes) -> str:
    """Who answers at the address of an app's agent, as the end of a sentence that begins "At its address".

    Args:
        authorities: certificates that an agent's is signed by, PEM.
    Returns:
        For example "the agent of shop.files answers". Apps of other workspaces are not named: whoever reads this may
        not be allowed to know of them; the log does. Empty where nobody answers, or the agent itself does.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # which name it has is the question
    context.load_verify_locations(cadata=authorities.decode("ascii"))
    address = Address.parse(app.agent)
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            _, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
    except ssl.SSLCertVerificationError as refused:
        return f"something answers whose certificate is not trusted ({refused.verify_message})"
    except ssl.SSLError as failure:
        return "something answers that does not speak TLS" if failure.reason == "WRONG_VERSION_NUMBER" else ""
    except (OSError, TimeoutError):
        return ""
    certificate = writer.get_extra_info("peercert")
    writer.transport.abort()
    return _who([value for kind, value in certificate.get("subjectAltName", ()) if kind == "URI"], app)


def _who(uris: list[str], app: App) -> str:
    if agent_uri(app.id) in uris:
        return ""
    _log.warning(
        "Another than an app's agent answers at its address.",
        action="dial",
        app_id=app.id,
        address=app.agent,
        certificate_uris=uris,
    )
    for uri in uris:
        if uri.startswith(AGENT_URI_PREFIX):
            other = uri.removeprefix(AGENT_URI_PREFIX)
            is_of_the_same = other.partition(".")[0] == app.workspace
            return f"the agent of {other if is_of_the_same else 'an app in another workspace'} answers"
    return "something answers that is no agent"
