"""Where the app's server is and who the agent is there: the recipe's table in the agent's configuration."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Annotated

import msgspec

from agent.engines.configured import checked, read_secret
from agent.engines.redis.connection import Login
from common.errors import AppUnavailableError


class RedisSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a server is reached. Files with secrets are read each time, so they may be rotated."""

    host: str = "127.0.0.1"
    """A name, an address, or the path of a unix socket."""
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 6379
    user: str = ""
    """An ACL user; empty: the default user."""
    password_file: str = ""
    """Holds the password, with or without a line end; empty: the server asks for none."""
    tls: bool = False
    """The server takes TLS on this port."""
    tls_ca_file: str = ""
    """Certificates (PEM) that vouch for the server's; empty: the system's."""
    tls_cert_file: str = ""
    """The agent's own certificate (PEM), for servers that ask for one, and for imports over a network: the server is
    made the agent's replica for a moment then, so its `tls-ca-cert-file` has to vouch for this one."""
    tls_key_file: str = ""
    reach_agent_at: str = ""
    """Host name or address at which the server reaches the agent during an import; empty: the address that the agent
    calls from."""
    agent_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    """Where the agent listens for the server during an import; 0: any free port."""
    module_types: dict[str, str] = {}
    """Data types of modules that this program does not know, by their nine characters, and the module's name as MODULE
    LIST has it: {"mydata-00" = "mymodule"}."""

    def login(self) -> Login:
        """
        Raises:
            AppUnavailableError: a file with a secret or certificate cannot be read.
        """
        return Login(
            host=self.host,
            port=self.port,
            user=self.user,
            password=read_secret(self.password_file),
            tls=self._client_context() if self.tls else None,
        )

    def server_context(self) -> ssl.SSLContext | None:
        """For a server that replicates over TLS and connects to us; None: there is no certificate for that."""
        if not self.tls_cert_file:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._load(context)
        return context

    def _client_context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.tls_ca_file or None)
        except (OSError, ssl.SSLError) as failure:
            raise AppUnavailableError(f"The file {self.tls_ca_file} cannot be used: {failure}.") from failure
        if self.tls_cert_file:
            self._load(context)
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            context.load_cert_chain(self.tls_cert_file, self.tls_key_file or None)
        except (OSError, ssl.SSLError) as failure:
            raise AppUnavailableError(
                f"The certificate {self.tls_cert_file} and its key cannot be used: {failure}."
            ) from failure


def read_settings(table: Mapping[str, object]) -> RedisSettings:
    """Check a table of the configuration; InvalidRequestError names what is wrong."""
    return checked(table, RedisSettings, recipe="redis")
