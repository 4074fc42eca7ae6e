"""aiohttp, without the authorities of the web that it reads when it is imported: 2 MiB.

The agent has a TLS context of its own wherever it needs one (see `MinioSettings.tls_context`); aiohttp's own one knows
nobody here, so a connection that used it would be refused.
"""

from __future__ import annotations

import os

_PLACES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""Where OpenSSL is told to look for them."""
_kept = {name: os.environ.get(name) for name in _PLACES}
os.environ.update(dict.fromkeys(_PLACES, os.devnull))
try:
    import aiohttp as aiohttp
finally:
    for _name, _value in _kept.items():
        if _value is None:
            del os.environ[_name]
        else:
            os.environ[_name] = _value
