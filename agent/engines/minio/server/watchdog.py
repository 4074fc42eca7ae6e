"""The child that freezes a server and ends that again: when told, when its parent is gone, or when time is up.

Orders come on stdin: a line of JSON, then a word when the freeze may end, or the end of the input. It is not killed
with its parent, as other children are: it has work to do then. An exchange that the parent has left unfinished is put
to one side before clients go on (`keeping`): they would find no buckets, and make them anew over what they were.

Standard library only, so that it starts fast; what that takes is imported when it comes to it.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib
import json
import os
import select
import signal
import ssl
import sys
import time
import urllib.parse
from typing import TypedDict

from agent.engines.minio.server.signing import EMPTY_SHA256, Account, query_of, signed_headers

_CALL_SECONDS = 20.0
_PATH = "/minio/admin/v3/service"


class Guarded(TypedDict):
    """An exchange that is to be done while the server is frozen.

    Attributes:
        drive, key, only: as of `Exchange`.
        side: the one to put in place where it is left unfinished; the server has it in memory.
    """

    drive: str
    key: str
    only: str
    side: str


class Orders(TypedDict):
    """What it is told.

    Attributes:
        alive: a descriptor; it is closed before clients go on that nobody has told to.
        exchange: None: the drive stays as it is.
    """

    url: str
    user: str
    password: str
    region: str
    tls_ca_file: str
    most_seconds: float
    alive: int
    exchange: Guarded | None


KEEP = "keep"
"""The word to end without ending the freeze, as the exchange could not be finished; any other ends that."""


def main() -> None:
    """Prints `frozen`, and at the end `released`, or `lapsed` when the freeze was over before that was asked for."""
    # Its parent closes the input first and then sends this; what has to be done takes a moment longer.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    orders: Orders = json.loads(_line())
    ends_at = time.monotonic() + orders["most_seconds"]
    try:
        _service(orders, "freeze")
    except PermissionError as refusal:
        # It was not frozen; any other failure may have come after that.
        print(f"the server said no: {refusal}", file=sys.stderr)
        sys.exit(1)
    except (OSError, http.client.HTTPException) as failure:
        print(f"the freeze failed: {failure}", file=sys.stderr)
        _unfreeze(orders)
        sys.exit(1)
    _say("frozen")
    is_asked = bool(select.select([0], [], [], max(ends_at - time.monotonic(), 0))[0])
    word = _line().decode().strip() if is_asked else ""
    if word == KEEP:
        return
    if not word:
        _leave_whole(orders, is_alone=is_asked)
    _unfreeze(orders)
    _say("released" if is_asked else "lapsed")


def _leave_whole(orders: Orders, *, is_alone: bool) -> None:
    """See that no exchange is unfinished, nor begun later."""
    if (guarded := orders["exchange"]) is not None:
        keeping = importlib.import_module("agent.engines.minio.server.keeping")
        keeping.leave_whole(guarded, orders, is_alone=is_alone)
    else:
        os.close(orders["alive"])


def _unfreeze(orders: Orders) -> None:
    """Until it worked: nobody else may be there to do it. A server that is gone is not frozen any more."""
    for _ in range(30):
        with contextlib.suppress(http.client.HTTPException, TimeoutError, PermissionError):
            try:
                _service(orders, "unfreeze")
            except ConnectionRefusedError:
                return
            except ConnectionError:
                time.sleep(0.1)
                continue
            return
        time.sleep(1)


def _service(orders: Orders, action: str) -> None:
    account = account_of(orders)
    query = query_of({"action": action})
    headers = signed_headers(account, "POST", _PATH, query=query, headers={}, payload_sha256=EMPTY_SHA256)
    address = urllib.parse.urlsplit(account.url)
    connection: http.client.HTTPConnection
    if (context := tls_context(orders)) is not None:
        connection = http.client.HTTPSConnection(
            address.hostname or "", address.port, timeout=_CALL_SECONDS, context=context
        )
    else:
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=_CALL_SECONDS)
    with contextlib.closing(connection):
        connection.request("POST", f"{_PATH}?{query}", headers=headers)
        response = connection.getresponse()
        said = response.read()
        if response.status >= 300:
            raise PermissionError(f"status {response.status}: {said[:200].decode(errors='replace')}")


def account_of(orders: Orders) -> Account:
    """Whose calls they are."""
    return Account(orders["url"], orders["user"], orders["password"], orders["region"])


def tls_context(orders: Orders) -> ssl.SSLContext | None:
    """None: the server is spoken to without."""
    if urllib.parse.urlsplit(orders["url"]).scheme != "https":
        return None
    return ssl.create_default_context(cafile=orders["tls_ca_file"] or None)


def _line() -> bytes:
    line = b""
    while not line.endswith(b"\n") and (more := os.read(0, 1)):
        line += more
    return line


def _say(word: str) -> None:
    # Nobody may listen any more.
    with contextlib.suppress(OSError):
        os.write(1, f"{word}\n".encode())


if __name__ == "__main__":
    main()
