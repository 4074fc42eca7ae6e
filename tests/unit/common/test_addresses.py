"""host:port as settings have it."""

from __future__ import annotations

import pytest

from common.addresses import Address


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("127.0.0.1:0", "127.0.0.1", 0), ("[::1]:443", "::1", 443), ("db.shop.svc:9443", "db.shop.svc", 9443)],
)
def test_addresses_are_parsed_and_written_back(text: str, host: str, port: int) -> None:
    address = Address.parse(text)

    assert (address.host, address.port, str(address)) == (host, port, text)


@pytest.mark.parametrize("text", ["", ":80", "host", "host:", "host:x", "host:-1", "host:65536", "host:8²"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not host:port"):
        Address.parse(text)
