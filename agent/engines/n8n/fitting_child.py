"""The jailed child that tries a key on secrets of n8n's: the library that opens them costs its process 8 MiB."""

from __future__ import annotations

import sys

import msgspec

from agent.engines.n8n.encryption import warm_up
from agent.engines.n8n.fits import Request
from agent.engines.n8n.rekeying import fit_of_rows
from agent.jail import enter_from_argv


def main() -> None:
    warm_up()
    enter_from_argv()
    request = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Request)
    fit = fit_of_rows(request.wrapped, request.credentials, request.key)
    sys.stdout.buffer.write(msgspec.msgpack.encode(fit))


if __name__ == "__main__":
    main()
