"""What a caller may ask of an export or import of n8n: the recipe's options, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agent.engines.n8n.settings import N8nSettings
from common.errors import InvalidRequestError

_EXPORT_OPTIONS = {
    "key": "sealed, omit or clear",
    "recipient": "age's public keys, with commas between them",
    "passphrase": "a passphrase to seal the encryption key with",
    "fingerprint": "yes or no",
}
_IMPORT_OPTIONS = {
    "identity": "age's secret key that the encryption key was sealed for",
    "passphrase": "the passphrase that the encryption key was sealed with",
    "encryption_key": "the encryption key of the n8n that the data comes from",
    "without_credentials": "true or false",
    "deactivate_workflows": "true or false",
    "whole_database": "true or false",
}


@dataclass(frozen=True)
class ExportWishes:
    """How the encryption key is to travel.

    Attributes:
        recipients, passphrase: for whom it is sealed; neither: it stays behind.
        is_clear: as it is, because the caller asked for that.
    """

    recipients: tuple[str, ...] = ()
    passphrase: str = ""
    is_clear: bool = False

    @property
    def is_sealed(self) -> bool:
        return bool(self.recipients or self.passphrase)


@dataclass(frozen=True)
class ImportWishes:
    """What may open the key, and what is to be left out.

    Attributes:
        whole_database: exchange the database in a server with what is in it besides this n8n.
    """

    identities: tuple[str, ...]
    passphrase: str
    encryption_key: str
    without_credentials: bool
    deactivate_workflows: bool
    whole_database: bool


def read_export_wishes(options: Mapping[str, str], settings: N8nSettings) -> ExportWishes:
    """InvalidRequestError for an unknown option, or some that do not go together."""
    _check_names(options, _EXPORT_OPTIONS, "An export of")
    key, passphrase = options.get("key", ""), options.get("passphrase", "")
    recipients = tuple(part for part in options.get("recipient", "").split(",") if part)
    if key not in ("", "sealed", "omit", "clear"):
        raise InvalidRequestError(f"The option key is {_EXPORT_OPTIONS['key']}, not {key!r}.")
    if passphrase and recipients:
        raise InvalidRequestError(
            "The key is sealed with a passphrase or for recipients; age's format allows not both."
        )
    if key in ("omit", "clear"):
        if passphrase or recipients:
            raise InvalidRequestError(f"The option key={key} does not go together with a passphrase or recipient.")
        return ExportWishes(is_clear=key == "clear")
    if not passphrase and not recipients:
        recipients = settings.seal_recipients
        passphrase = "" if recipients else settings.passphrase()
    if key == "sealed" and not passphrase and not recipients:
        raise InvalidRequestError("To seal the key, the option recipient or passphrase has to say for whom.")
    return ExportWishes(recipients, passphrase)


def read_import_wishes(options: Mapping[str, str], settings: N8nSettings) -> ImportWishes:
    """InvalidRequestError for an unknown option or value."""
    _check_names(options, _IMPORT_OPTIONS, "An import into")
    identity = options.get("identity", "")
    return ImportWishes(
        identities=(identity,) if identity else tuple(settings.identities()),
        passphrase=options.get("passphrase", "") or settings.passphrase(),
        encryption_key=options.get("encryption_key", ""),
        without_credentials=_flag(options, "without_credentials"),
        deactivate_workflows=_flag(options, "deactivate_workflows"),
        whole_database=_flag(options, "whole_database"),
    )


def _check_names(options: Mapping[str, str], known: Mapping[str, str], what: str) -> None:
    for name, value in options.items():
        if name not in known:
            listed = "; ".join(f"{one}: {meaning}" for one, meaning in known.items())
            raise InvalidRequestError(f"{what} n8n has no option {name!r}. There are {listed}.")
        if not value:
            # A variable of a shell that was not set, perhaps: the key would not be sealed, without a word.
            raise InvalidRequestError(f"The option {name} is empty. It is {known[name]}; or leave it out.")


def _flag(options: Mapping[str, str], name: str) -> bool:
    value = options.get(name, "false")
    if value not in ("true", "false"):
        raise InvalidRequestError(f"The option {name} is true or false, not {value!r}.")
    return value == "true"
