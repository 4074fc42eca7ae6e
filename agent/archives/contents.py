"""The content of a tree as an order-free sum, fed while an archive of it is written or read.

A file counts by its path, permissions and bytes; holes count as the zeros that they read as. Owners and times do not
count: an import may have to change them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from agent.archives.members import Kind, Member, printable
from common.fingerprints import Fingerprint

WINDOW_BYTES = 256 << 10
"""A file is hashed in pieces of this size, leaving out those that hold nothing but zeros. It is what `writing` reads at
a time; other pieces are copied first."""
_BESIDE_BYTES = 1 << 17
"""From this size on a piece is hashed in a thread, while the archive goes on; hashing releases the interpreter lock."""
_MOST_GROUPS = 4096
_SUM_BYTES = 256
"""Of the hash of each entry and of their sum: a shorter one would have a second content sooner, see decision 0304."""
_MODULUS = 1 << 8 * _SUM_BYTES
_PERMISSIONS = 0o777
_ZEROS = bytes(WINDOW_BYTES)
_HASHING = ThreadPoolExecutor(1, thread_name_prefix="content")


@dataclass
class _Group:
    entries: int = 0
    bytes: int = 0
    sum: int = 0

    def __str__(self) -> str:
        told = hashlib.sha256((self.sum % _MODULUS).to_bytes(_SUM_BYTES)).hexdigest()[:32]
        return f"{self.entries} entries, {self.bytes} bytes, {told}"

    def add(self, other: _Group) -> None:
        self.entries += other.entries
        self.bytes += other.bytes
        self.sum += other.sum


class ContentSum:
    """Calls for each entry: `begin`, `add` for a file's content in ascending order, `end`; or `add_member`."""

    def __init__(self, scheme: str, *, without: str = "", may_thread: bool = True) -> None:
        """
        Args:
            without: path of an entry that does not count: a database that has digests of its own.
            may_thread: False in a jail, where there are no threads.
        """
        self._scheme = scheme
        self._without = without
        self._may_thread = may_thread
        self._groups: dict[str, _Group] = {}
        self._member: Member | None = None
        self._hash = hashlib.sha256()
        self._window = bytearray()
        self._index = 0
        self._hashing: Future[None] | None = None

    def begin(self, member: Member) -> None:
        """An entry; its size has to be right by `end`."""
        self._member = None if self._without and member.name == self._without else member
        self._hash = hashlib.sha256()
        self._window.clear()
        self._index = 0

    def add(self, offset: int, piece: bytes) -> None:
        """Bytes of a file; what is left out is a hole."""
        if self._member is None:
            return
        view = memoryview(piece)
        while view:
            index, filled = divmod(offset, WINDOW_BYTES)
            if index != self._index:
                self._flush()
                self._index = index
            size = min(WINDOW_BYTES - filled, len(view))
            if size == WINDOW_BYTES:
                self._take(index, piece if size == len(piece) else bytes(view[:size]))
            else:
                self._window += bytes(filled - len(self._window))
                self._window += view[:size]
            offset += size
            view = view[size:]

    def end(self) -> None:
        """The entry is complete."""
        self._flush()
        self._wait()
        member = self._member
        if member is None:
            return
        self._member = None
        path = member.name.strip("/")
        size = member.size if member.kind is Kind.FILE else 0
        # A link's permissions are nobody's; a hard link has those of its file.
        mode = member.mode & _PERMISSIONS if member.kind in (Kind.FILE, Kind.DIRECTORY) else 0
        words = (path, member.kind.value, member.link_target, f"{mode:o} {size}")
        text = "\0".join(words).encode(errors="surrogateescape")
        directory, slash, _ = path.partition("/")
        name = directory if slash or member.kind is Kind.DIRECTORY else ""
        group = self._groups.setdefault(name if len(self._groups) <= _MOST_GROUPS else "", _Group())
        group.entries += 1
        group.bytes += size
        group.sum += int.from_bytes(hashlib.shake_128(text + b"\0" + self._hash.digest()).digest(_SUM_BYTES))

    def add_member(self, member: Member, pieces: Iterable[tuple[int, bytes]]) -> None:
        """An entry of an archive that is read, with its content."""
        self.begin(member)
        for offset, piece in pieces:
            self.add(offset, piece)
        self.end()

    def fingerprint(self) -> Fingerprint:
        """Of all entries. Groups are the directories at the top, as long as there are not too many of them; those whose
        names print alike are one."""
        groups: dict[str, _Group] = {}
        has_too_many = len(self._groups) > _MOST_GROUPS
        for name, found in self._groups.items():
            shown = f"below {printable(name)}" if name and not has_too_many else "elsewhere"
            groups.setdefault(shown, _Group()).add(found)
        return Fingerprint.of(self._scheme, {shown: str(one) for shown, one in groups.items()})

    def _flush(self) -> None:
        if self._window:
            self._take(self._index, bytes(self._window))
            self._window.clear()

    def _take(self, index: int, window: bytes) -> None:
        """What a file holds from `index` windows on."""
        self._wait()
        if len(window) < _BESIDE_BYTES or not self._may_thread:
            _update(self._hash, index, window)
        else:
            self._hashing = _HASHING.submit(_update, self._hash, index, window)

    def _wait(self) -> None:
        if self._hashing is not None:
            self._hashing.result()
            self._hashing = None


def _update(content: hashlib._Hash, index: int, window: bytes) -> None:
    """Zeros at the end of a window are a hole's in one copy of a file and not in another."""
    if window != _ZEROS[: len(window)]:
        told = window if window[-1] else window.rstrip(b"\0")
        content.update(index.to_bytes(8) + len(told).to_bytes(8))
        content.update(told)
