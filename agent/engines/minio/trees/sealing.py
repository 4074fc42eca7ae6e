"""The secrets in an archive: files that hold keys of users, or of remote targets, closed with a passphrase.

Each such file is sealed by itself under its own name, so that the rest of an archive opens with tar alone: magic, salt,
nonce, then AES-256-GCM over the content with the file's path as associated data. The key is PBKDF2-HMAC-SHA256 of the
passphrase; docs/recipes/minio.md has the ten lines that open one by hand. It runs in a child (`sealing_child`): the
library takes 6 MiB, and what is opened is an upload's.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from agent.archives.walking import walk
from agent.engines.filesystem import replace_file
from agent.engines.minio.drive.layout import SEALED_MAGIC as MAGIC
from common.errors import ArchiveDamagedError, ArchiveIncompatibleError, SourceUnreadableError

ITERATIONS = 600_000
_SALT_BYTES, _NONCE_BYTES, _TAG_BYTES = 16, 12, 16
_HEAD_BYTES = len(MAGIC) + _SALT_BYTES + _NONCE_BYTES
_MAX_FILE_BYTES = 32 << 20
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


class Seal:
    """Closes files of one archive. Making one takes some tenths of a second."""

    def __init__(self, passphrase: str) -> None:
        self._salt = os.urandom(_SALT_BYTES)
        self._cipher = AESGCM(_key(passphrase, self._salt))

    def close(self, content: bytes, path: str) -> bytes:
        """A file's content, sealed."""
        nonce = os.urandom(_NONCE_BYTES)
        return MAGIC + self._salt + nonce + self._cipher.encrypt(nonce, content, _path(path))


def seal_files(root: int, passphrase: str, starts: Sequence[str]) -> int:
    """Seal all files below some paths of a snapshot, in place; how many there were.

    Each is replaced, not rewritten: it may be a link of a file that MinIO reads.

    Args:
        root: descriptor of the snapshot.
    Raises:
        SourceUnreadableError: one is too long to be what it should be.
    """
    seal = Seal(passphrase)
    inside = tuple(f"{start}/" for start in starts)
    above = tuple(f"{start}/".partition("/")[0] for start in starts)
    sealed = 0
    for found in walk(root, is_left_out=lambda path, name: path.partition("/")[0] not in above):
        if not stat.S_ISREG(found.status.st_mode) or not found.path.startswith(inside):
            continue
        if found.status.st_size > _MAX_FILE_BYTES - _HEAD_BYTES - _TAG_BYTES:
            raise SourceUnreadableError(f"{found.path!r} is too long to be sealed; use `secrets=clear`.")
        with open(os.open(found.name, _READ, dir_fd=found.parent), "rb", buffering=0) as file:
            content = file.readall()
        replace_file(found.name, seal.close(content, found.path), parent=found.parent)
        sealed += 1
    return sealed


def open_sealed(root: int, passphrases: Sequence[str]) -> int:
    """Open all sealed files below `.minio.sys` of an unpacked archive, in place; how many there were.

    Args:
        root: descriptor of the tree.
    Raises:
        ArchiveIncompatibleError: none of the passphrases opens them.
        ArchiveDamagedError: one does, and a file does not check out.
    """
    opened = 0
    known_salt = b""
    cipher: AESGCM | None = None
    for found in walk(root, is_left_out=lambda path, name: not f"{path}/".startswith(".minio.sys/")):
        if not stat.S_ISREG(found.status.st_mode) or found.status.st_size < _HEAD_BYTES + _TAG_BYTES:
            continue
        descriptor = os.open(found.name, _READ, dir_fd=found.parent)
        with open(descriptor, "rb", buffering=0) as file:
            if found.status.st_size > _MAX_FILE_BYTES or file.read(len(MAGIC)) != MAGIC:
                continue
            sealed = file.readall()
        salt, nonce = sealed[:_SALT_BYTES], sealed[_SALT_BYTES : _SALT_BYTES + _NONCE_BYTES]
        content = sealed[_SALT_BYTES + _NONCE_BYTES :]
        if cipher is None:
            known_salt, cipher = salt, _find_cipher(salt, nonce, content, found.path, passphrases)
        try:
            if salt != known_salt:
                raise InvalidTag
            clear = cipher.decrypt(nonce, content, _path(found.path))
        except InvalidTag as failure:
            raise ArchiveDamagedError(f"The sealed file {found.path!r} in the archive is damaged.") from failure
        descriptor = os.open(found.name, _WRITE, dir_fd=found.parent)
        with open(descriptor, "wb") as opened_file:
            opened_file.write(clear)
        os.utime(found.name, ns=(found.status.st_mtime_ns,) * 2, dir_fd=found.parent, follow_symlinks=False)
        opened += 1
    return opened


def get_ready() -> None:
    """Load what the library would load late: nothing can be imported in a jail."""
    AESGCM(bytes(32)).encrypt(bytes(_NONCE_BYTES), b"", b"")
    hashlib.pbkdf2_hmac("sha256", b"", b"", 1, 32)


def _find_cipher(salt: bytes, nonce: bytes, content: bytes, path: str, passphrases: Iterable[str]) -> AESGCM:
    for passphrase in passphrases:
        cipher = AESGCM(_key(passphrase, salt))
        try:
            cipher.decrypt(nonce, content, _path(path))
        except InvalidTag:
            continue
        return cipher
    raise ArchiveIncompatibleError(
        "The users and keys in the archive are sealed, and nothing that the agent knows opens them: they were sealed "
        "with the passphrase of another agent or the root password of another server.",
        next_step="Put that into a file named in `open_files` of the agent's settings, or import with `users=keep`, "
        "which leaves this server's users, policies and configuration as they are.",
    )


def _key(passphrase: str, salt: bytes) -> bytes:
    return hashlib.pbkdf2_hmac("sha256", passphrase.encode(), salt, ITERATIONS, 32)


def _path(path: str) -> bytes:
    return path.encode(errors="surrogateescape")
