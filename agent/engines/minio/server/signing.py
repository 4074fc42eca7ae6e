"""Amazon's signature version 4, as MinIO checks it for S3 and for its admin calls.

Standard library only: the freeze's watchdog is a child that has to start fast.
"""

from __future__ import annotations

import hashlib
import hmac
import time
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field

EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
_UNRESERVED = "-._~"


@dataclass(frozen=True)
class Account:
    """Where a server is and who calls it.

    Attributes:
        url: without a path, for example "http://127.0.0.1:9000".
        user, password: access key and secret key.
    """

    url: str
    user: str
    password: str = field(repr=False)
    region: str = "us-east-1"

    @property
    def host(self) -> str:
        """As the Host header says it."""
        return urllib.parse.urlsplit(self.url).netloc


def path_of(bucket: str = "", key: str = "") -> str:
    """The path of a bucket's or an object's URL, escaped as the signature wants it."""
    if not key:
        return f"/{bucket}"
    return f"/{bucket}/{urllib.parse.quote(key.encode(errors='surrogateescape'), safe='/' + _UNRESERVED)}"


def query_of(query: Mapping[str, str]) -> str:
    """A query, escaped and in the order that the signature wants."""
    return "&".join(f"{_quoted(name)}={_quoted(value)}" for name, value in sorted(query.items()))


def signed_headers(
    account: Account,
    method: str,
    path: str,
    *,
    query: str,
    headers: Mapping[str, str],
    payload_sha256: str,
    seconds: float | None = None,
) -> dict[str, str]:
    """The headers of a request, all of them signed.

    Args:
        path, query: escaped, from `path_of` and `query_of`.
        payload_sha256: lower-case hex, or "UNSIGNED-PAYLOAD".
        seconds: the time, since 1970; None: now.
    """
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(seconds))
    named = {name.lower(): value for name, value in headers.items()}
    named |= {"host": account.host, "x-amz-date": moment, "x-amz-content-sha256": payload_sha256}
    names = ";".join(sorted(named))
    lines = [f"{name}:{' '.join(named[name].split())}" for name in sorted(named)]
    request = "\n".join([method, path, query, *lines, "", names, payload_sha256])
    scope = f"{moment[:8]}/{account.region}/s3/aws4_request"
    to_sign = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{account.password}".encode()
    for part in (moment[:8], account.region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    named["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={account.user}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return named


def _quoted(text: str) -> str:
    return urllib.parse.quote(text.encode(errors="surrogateescape"), safe=_UNRESERVED)
