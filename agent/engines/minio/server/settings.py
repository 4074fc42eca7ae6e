"""Where the app's server and its drive are, and who the agent is there: the recipe's table in the agent's settings."""

from __future__ import annotations

import ssl
import urllib.parse
from collections.abc import Mapping

import msgspec

from agent.engines.configured import checked, data_directory, read_secret
from agent.engines.minio.server.signing import Account
from common.errors import AppUnavailableError, InvalidRequestError


class MinioSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a server is reached. Files with secrets are read each time, so they may be rotated."""

    url: str = "http://127.0.0.1:9000"
    """Of its S3 port."""
    user: str = ""
    """Root's name: MINIO_ROOT_USER."""
    user_file: str = ""
    """Holds root's name, in place of `user`."""
    password_file: str = ""
    """Holds root's password: MINIO_ROOT_PASSWORD."""
    directory: str = ""
    """The server's drive, as the agent sees it: the same volume, mounted into the agent. Empty: only the portable
    format works."""
    region: str = "us-east-1"
    tls_ca_file: str = ""
    """Certificates (PEM) that vouch for the server's; empty: the system's."""
    kms_key_file: str = ""
    """Holds what the server has as MINIO_KMS_SECRET_KEY; only to compare it with that of an archive."""
    seal_file: str = ""
    """Holds the passphrase that seals the secrets in an archive; empty: root's password does."""
    open_files: list[str] = []
    """Hold passphrases, and root passwords of other servers, whose archives are taken as well."""

    def account(self) -> Account:
        """
        Raises:
            AppUnavailableError: a file with a name or secret cannot be read.
        """
        user = self.user or read_secret(self.user_file)
        return Account(self.url.rstrip("/"), user, read_secret(self.password_file), self.region)

    def tls_context(self) -> ssl.SSLContext | None:
        """How the server proves itself; None: it does not use TLS."""
        if not self.url.startswith("https:"):
            return None
        try:
            return ssl.create_default_context(cafile=self.tls_ca_file or None)
        except (OSError, ssl.SSLError) as failure:
            raise AppUnavailableError(f"The file {self.tls_ca_file} cannot be used: {failure}.") from failure

    def seal_passphrase(self) -> str:
        """What seals the secrets of an export."""
        return read_secret(self.seal_file or self.password_file)

    def open_passphrases(self) -> list[str]:
        """What may open those of an upload, the likeliest first."""
        files = [self.seal_file, self.password_file, *self.open_files]
        return [read_secret(file) for file in dict.fromkeys(files) if file]

    def kms_key(self) -> str:
        """The server's KMS key; empty: the agent does not know it."""
        return read_secret(self.kms_key_file)


def read_settings(table: Mapping[str, object]) -> MinioSettings:
    """Check a table of the configuration; InvalidRequestError names what is wrong."""
    settings = checked(table, MinioSettings, recipe="minio")
    parts = urllib.parse.urlsplit(settings.url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise InvalidRequestError("The setting `url` has to be the server's address, as in http://127.0.0.1:9000.")
    if not settings.user and not settings.user_file:
        raise InvalidRequestError("The recipe minio needs `user` or `user_file`: the name of root.")
    if not settings.password_file:
        raise InvalidRequestError("The recipe minio needs `password_file`: a file with root's password.")
    if settings.directory:
        data_directory(settings.directory, of="the server's drive")
    return settings
