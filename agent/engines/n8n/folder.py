"""n8n's folder beside its database: which of it travels, where the key is in it, and how a staged one is made ready.

The one fact to know: the file `config` holds the instance's key and belongs to the instance, not to the data. n8n ends
at once when it finds another key there than in its environment, so an import never brings a `config` along.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.engines.configured import read_secret, without_line_end
from agent.engines.filesystem import DIRECTORY, read_small_file
from agent.engines.n8n.fits import Fit
from agent.engines.n8n.settings import N8nSettings
from agent.engines.subtrees import remove_tree
from common.errors import AppUnavailableError, ArchiveDamagedError
from common.wording import some_of

CONFIG = "config"
SEALED_KEY = "encryption-key.age"
CLEAR_KEY = "encryption-key.txt"
LEFT_OUT = (f"/{CONFIG}", f"/{SEALED_KEY}", f"/{CLEAR_KEY}", "/n8nEventLog*", "/crash.journal", "/.cache")
"""At the top of the folder: the instance's own, and logs."""
_KEY_FIELD = "encryptionKey"
_MIGRATED_FIELD = "fsStorageMigrated"
"""Set by n8n 2 once it has moved `binaryData` to `storage`."""
_OLD_STORAGE, _STORAGE = "binaryData", "storage"
_MOST_BYTES = 64 << 10
_MOST_NAMES = 3
_OWN_NEXT_STEP = "See that it is a small file of JSON, as n8n writes it, and readable for the agent."


def instance_key(settings: N8nSettings) -> str:
    """The key that n8n uses; empty: it is nowhere the agent may look.

    Raises:
        AppUnavailableError: the file that should hold it cannot be read.
    """
    if settings.encryption_key_file:
        return read_secret(settings.encryption_key_file).strip()
    return _key_in(_config_of(settings.folder)) if settings.folder else ""


def required_key(settings: N8nSettings, fit: Fit) -> str:
    """The same, for an import, which is encrypted for it.

    Args:
        fit: of that key on what n8n has now.
    Raises:
        AppUnavailableError: it is not known, or not the one that n8n uses.
    """
    key = instance_key(settings)
    if not key:
        raise AppUnavailableError(
            f"n8n's encryption key is neither in {Path(settings.directory) / CONFIG} nor in a file the agent knows of.",
            next_step="Set encryption_key_file to a file with what n8n has as N8N_ENCRYPTION_KEY.",
        )
    # The one in `config` is n8n's for certain, whatever it opens.
    if settings.encryption_key_file:
        own = _key_in(_config_of(settings.folder)) if settings.folder else ""
        if own and own != key:
            raise _not_of_n8n(settings, f"is another encryption key than n8n's file {CONFIG} in {settings.folder} has")
        if not fit.is_right:
            some = some_of(fit.unreadable, _MOST_NAMES)
            raise _not_of_n8n(settings, f"does not open what n8n has now: {some}")
    return key


def _not_of_n8n(settings: N8nSettings, why: str) -> AppUnavailableError:
    return AppUnavailableError(
        f"What is in {settings.encryption_key_file} {why}. n8n would open nothing that is encrypted for it.",
        next_step="Put into encryption_key_file what n8n has as N8N_ENCRYPTION_KEY. Where that is in there, and n8n's "
        "own data is lost under another key, let it begin with an empty database first.",
    )


@dataclass(frozen=True)
class StagedKey:
    """What an archive has of its key: sealed, or in clear; both empty for one without."""

    sealed: bytes = b""
    clear: str = ""


def take_key(staged: Path) -> StagedKey:
    """Take the key and the configuration out of a folder that was unpacked from an archive.

    Raises:
        ArchiveDamagedError: one of them is no small text file.
    """
    with _opened(staged) as directory:
        sealed = _read(SEALED_KEY, directory)
        clear = _read(CLEAR_KEY, directory)
        config = _read(CONFIG, directory)
        for name in (SEALED_KEY, CLEAR_KEY, CONFIG):
            remove_tree(name, parent=directory)
    if sealed is not None:
        return StagedKey(sealed=sealed)
    if clear is None:
        # A copy of the whole folder that somebody made without us.
        return StagedKey(clear=_key_in(_parsed(config or b"{}")))
    return StagedKey(clear=without_line_end(clear.decode(errors="replace")))


def write_config(folder: Path, target: int) -> None:
    """Give a staged folder the instance's own `config`, where it has one.

    Args:
        target: descriptor of the staged one.
    Raises:
        AppUnavailableError: the instance's cannot be read.
    """
    if not os.path.lexists(folder / CONFIG):
        return
    fields = dict(_config_of(folder))
    status = (folder / CONFIG).lstat()
    fields.pop(_MIGRATED_FIELD, None)
    if _STORAGE in os.listdir(target) and _OLD_STORAGE not in os.listdir(target):
        fields[_MIGRATED_FIELD] = True
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(CONFIG, flags, 0o600, dir_fd=target)
    with open(descriptor, "w") as file:
        json.dump(fields, file, indent="\t")
        with contextlib.suppress(PermissionError):
            os.fchown(descriptor, status.st_uid, status.st_gid)
        os.fchmod(descriptor, stat.S_IMODE(status.st_mode))


def _config_of(folder: Path) -> Mapping[str, Any]:
    try:
        with _opened(folder) as directory:
            return _parsed(_read(CONFIG, directory) or b"{}")
    except (OSError, ArchiveDamagedError) as failure:
        raise AppUnavailableError(
            f"n8n's file {CONFIG} in {folder} cannot be read.", next_step=_OWN_NEXT_STEP
        ) from failure


def _key_in(fields: Mapping[str, Any]) -> str:
    """Empty where there is none; half a surrogate pair is what Node.js makes of it where it needs bytes."""
    key = fields.get(_KEY_FIELD)
    return key.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if isinstance(key, str) else ""


def _parsed(content: bytes) -> Mapping[str, Any]:
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError) as failure:
        raise ArchiveDamagedError(f"n8n's file {CONFIG} is not JSON.") from failure
    return fields if isinstance(fields, dict) else {}


def _read(name: str, directory: int) -> bytes | None:
    """A small file's content; None when there is none."""
    try:
        return read_small_file(name, parent=directory, most_bytes=_MOST_BYTES)
    except FileNotFoundError:
        return None
    except OSError as failure:
        raise ArchiveDamagedError(
            f"{name} is not a small file that can be read, as n8n's is: {failure.strerror}."
        ) from failure


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder.resolve(), DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
