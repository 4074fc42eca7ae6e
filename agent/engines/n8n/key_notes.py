"""Which key the data of an import is under: n8n may have got another one since, and would open nothing of it."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
from collections.abc import Mapping
from pathlib import Path

from agent.engines.n8n.fits import Fit
from agent.engines.n8n.folder import instance_key
from agent.engines.n8n.settings import N8nSettings
from common.errors import AppUnavailableError

_STAGED, _PREVIOUS = "staged_key", "previous_key"
"""Facts of an import; those of an older agent lack them."""


def fingerprint_of(key: str) -> str:
    """Tells keys apart without giving one away."""
    return hmac.new(key.encode(), b"mathison-data: n8n encryption key", hashlib.sha256).hexdigest()[:16]


def notes_of(key: str, fit: Fit) -> dict[str, str]:
    """What a record keeps: fingerprints of the keys that open what was staged and what was there before.

    Args:
        key: the instance's.
        fit: of that key on what is there. Nothing is noted of data that it does not open, or that has no secrets: that
            is no worse under another one.
    """
    opens_previous = fit.is_right and fit.readable > 0
    return {_STAGED: fingerprint_of(key), _PREVIOUS: fingerprint_of(key) if opens_previous else ""}


def require_key_of_staged(facts: Mapping[str, object], settings: N8nSettings) -> None:
    """
    Raises:
        AppUnavailableError: n8n has another key than the one for which the secrets were encrypted again, or it cannot
            be read.
    """
    if _differs(facts, _STAGED, settings):
        raise AppUnavailableError(
            f"By {_told_by(settings)} n8n has another encryption key now than when the file was staged, and would open "
            "nothing that was encrypted for that one.",
            next_step="Import the file again.",
        )


def check_key_of_previous(facts: Mapping[str, object], settings: N8nSettings) -> str:
    """
    Returns:
        What a person should know of an undo that takes a new key in `config` away; empty for none.
    Raises:
        AppUnavailableError: the key in the settings' file is not the one that the previous data is under, or it cannot
            be read.
    """
    if settings.encryption_key_file and _differs(facts, _PREVIOUS, settings):
        raise AppUnavailableError(
            f"By {_told_by(settings)} n8n has another encryption key now than the one that the previous data is under, "
            "and would open nothing of it.",
            next_step="Give n8n and that file the key of before the import, then undo; or keep what is in place.",
        )
    # What is wrong with the present `config` is no reason against an undo, which brings back the one of before.
    with contextlib.suppress(AppUnavailableError):
        if not _differs(facts, _PREVIOUS, settings):
            return ""
    return (
        "n8n's encryption key is again the one of before the import, which the data is under: it stands in n8n's file "
        "config, which had another or none since. Where n8n has its key from the environment, put it back there too."
    )


def _differs(facts: Mapping[str, object], name: str, settings: N8nSettings) -> bool:
    noted = facts.get(name)
    return bool(noted) and noted != fingerprint_of(instance_key(settings))


def _told_by(settings: N8nSettings) -> str:
    return settings.encryption_key_file or str(Path(settings.directory) / "config")
