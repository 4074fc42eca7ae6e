"""An RDB file from its first byte to its last, in one pass: what is in it, and whether a server can load it safely."""

from __future__ import annotations

import contextlib
import re
import time
from array import array
from collections import Counter
from collections.abc import Callable, Mapping

from agent.archives.members import printable
from agent.engines.rdb import lzf
from agent.engines.rdb.content import Library, RdbContent
from agent.engines.rdb.distinct import Distinct
from agent.engines.rdb.layout import KINDS, NEWEST_VERSION, OLDEST_VERSION, Opcode, Type, module_type_name
from agent.engines.rdb.lua import beyond_registering, name_of
from agent.engines.rdb.source import ENCODED_LZF, IN_SMALLER_PIECES, INTEGER_BYTES, Rest, Source
from agent.engines.rdb.values import ValueReader
from common.errors import (
    ArchiveDamagedError,
    ArchiveError,
    ArchiveIncompatibleError,
    ArchiveTruncatedError,
    ArchiveWrongKindError,
    LimitExceededError,
    ServiceError,
)
from common.kinds import HEAD_BYTES, kind_of
from common.rdb import CRC_BYTES, RdbHeader, read_magic

MAGIC_BYTES = 9
_COMMAND = re.compile(rb"\s*(SET|HSET|HMSET|LPUSH|RPUSH|SADD|ZADD|SELECT|RESTORE|FLUSHALL|MULTI|XADD)\s", re.IGNORECASE)
SECTIONS = 512
FAST_KEYS = 1024
"""At most so many keys of the common kind in one section, and sections between two reports of progress."""
_MOST_FIELDS = 64
_MOST_FIELD_BYTES = 1 << 12
MOST_LIBRARY_BYTES = 1 << 20
"""Of code, in memory all at once; a large library has some 10 KiB."""
_LESS_CODE = (
    "Keep less there where the file comes from (FUNCTION DELETE) and export again; the rest can be loaded into the "
    "other server after the import (FUNCTION LOAD)."
)
_MOST_NAMED, _MOST_NAME_BYTES = 10, 100
_MOST_SCRIPT_SPANS = 1 << 12
"""A server writes all its scripts in one place."""
_SLOT_INFO_SINCE = 12
"""The RDB version; in files of older ones a server takes that for a type, and ends itself. Valkey has it in a field."""
MODULE_NUMBER_MARK = 2
"""Before a number that a module wrote."""
_SLOT_INFO = re.compile(rb"[0-9]{1,9},[0-9]{1,18},[0-9]{1,18}")
_HINT_SLACK = 1024
"""A hint makes the server reserve room, so a wrong one can end it; programs of others write approximate ones."""
NEVER_MS = -1
"""As the moment at which a key expires: to every server, that it does not."""
MOST_OF_A_MOMENT = 0x7F
"""In the last byte of a moment that is not negative."""
_NO_LENGTH = (1 << 64) - 1
"""What servers' own reader of lengths gives where it failed."""
_BEFORE_A_KEY = frozenset({Opcode.EXPIRE_MS, Opcode.EXPIRE_SECONDS, Opcode.FREQ, Opcode.IDLE})
"""What belongs to the key that follows; servers with an eviction policy write two of them."""
KIND_OF = {kind: name for name, kinds in KINDS.items() for kind in kinds}
"""What people call a type."""


class Walk:
    """One pass over a file."""

    def __init__(
        self,
        read: Callable[[int], bytes],
        *,
        is_trusted: bool,
        spill: int | None = None,
        on_header: Callable[[RdbHeader], None] = lambda header: None,
        on_progress: Callable[[int, int], None] = lambda keys, size_bytes: None,
    ) -> None:
        """
        Args:
            read: at most so many bytes, none at the end.
            is_trusted: a server is writing it just now: values are skipped where they can be, and what this program
                does not understand is a doubt, not an error, as long as the checksum holds.
            spill: see Distinct.
            on_header: told as soon as the magic was read.
            on_progress: told every so often how many keys and bytes were read.
        """
        self._source = Source(read)
        self._is_trusted = is_trusted
        self._distinct = Distinct(spill)
        self._hashes = array("q")
        self._on_header = on_header
        self._on_progress = on_progress
        self._now_ms = int(time.time() * 1000)
        self._kinds: Counter[Type] = Counter()
        self._vanishing_kinds: Counter[Type] = Counter()
        self._is_expiring = False
        self._is_expired = False
        self._has_begun_key = False
        self._hints: dict[int, int] = {}
        self._library_bytes = 0
        self._database = 0
        self._database_hash = hash(b"database 0")

    def run(self) -> RdbContent:
        """Read all of it.

        Raises:
            ArchiveWrongKindError: no RDB; says what it looks like.
            ArchiveTruncatedError: it stops before its end.
            ArchiveDamagedError: the checksum or the structure does not hold, something stands twice, bytes follow.
            ArchiveIncompatibleError: of a version, or with a type, that this program does not know.
            LimitExceededError: one key or packed value is too large to be checked.
        """
        self._content = content = self._open()
        self._begin(content)
        try:
            while self._sections():
                self._note()
        except ArchiveTruncatedError:
            raise
        except ServiceError as error:
            self._explain(error)
        else:
            self._close()
            if not self._is_trusted:
                self._require_sound()
        content.kinds = _by_name(self._kinds)
        content.vanishing_kinds = _by_name(self._vanishing_kinds)
        content.module_types = dict(self._values.module_types)
        content.empty = self._values.empty
        content.unpacked_bytes = content.size_bytes + self._values.packed_away_bytes
        return content

    def _begin(self, content: RdbContent) -> None:
        """The magic was read."""
        self._values = ValueReader(self._source, content.header, self._hashes, is_deep=not self._is_trusted)

    def _open(self) -> RdbContent:
        source = self._source
        with contextlib.suppress(ArchiveTruncatedError):
            source.fill(HEAD_BYTES)
        header = read_magic(source.buffer)
        if header is None:
            kind = "a list of commands" if _COMMAND.match(source.buffer) else kind_of(source.buffer)
            raise ArchiveWrongKindError(
                f"This is not an RDB file, it is {kind}.",
                next_step="Send the file that BGSAVE or `redis-cli --rdb` makes, or an export of this program.",
            )
        source.position = MAGIC_BYTES
        self._on_header(header)
        if header.version < OLDEST_VERSION[header.flavour]:
            raise ArchiveDamagedError(
                f"The file says that it is of version {header.magic}, which there is none.",
                next_step="Take another copy of the file, or export again.",
            )
        if header.version > NEWEST_VERSION[header.flavour] and not self._is_trusted:
            raise ArchiveIncompatibleError(
                f"The file is of version {header.magic}, which is newer than this program knows.",
                next_step="Update Mathison Data, or export with an older server.",
            )
        return RdbContent(flavour=header.flavour, version=header.version)

    def _sections(self) -> bool:
        return all(self._section() for _ in range(SECTIONS))

    def _section(self) -> bool:
        """What comes up to the next key that is not of the most common kind, and that key; False at the end."""
        if not self._has_begun_key and not self._is_expiring:
            self._fast_keys()
        source, content = self._source, self._content
        number = source.byte()
        self._has_begun_key = number in _BEFORE_A_KEY
        match number:
            case Opcode.EOF:
                source.position -= 1
                content.body_bytes, content.body_crc = source.offset, source.crc()
                source.byte()
                return False
            case Opcode.SELECT_DB:
                self._database = source.length()
                content.highest_database = max(content.highest_database, self._database)
                self._database_hash = hash(b"database %d" % self._database)
            case Opcode.EXPIRE_MS:
                self._expires(self._values.moment_ms())
            case Opcode.EXPIRE_SECONDS:
                self._expires(int.from_bytes(source.take(4), "little", signed=True) * 1000)
            case Opcode.RESIZE_DB:
                hint = max(source.length(), source.length())
                self._hints[self._database] = max(hint, self._hints.get(self._database, 0))
            case Opcode.AUX:
                self._field()
            case Opcode.FREQ:
                source.byte()
            case Opcode.IDLE:
                if source.length() == _NO_LENGTH:
                    raise source.damaged("a key that was not used for longer than a server can tell")
            case Opcode.SLOT_INFO:
                if content.flavour == "redis" and content.version < _SLOT_INFO_SINCE:
                    raise source.damaged(f"numbers of a slot, which files of version {content.header.magic} have not")
                if _NO_LENGTH in [source.length() for _ in range(3)]:
                    raise source.damaged("numbers of a slot that are none")
            case Opcode.FUNCTION:
                self._function()
                content.functions += 1
            case Opcode.MODULE_AUX:
                name = module_type_name(source.length())
                content.module_fields[name] = content.module_fields.get(name, 0) + 1
                # When it is to be loaded, before the keys or after them: a number with its mark.
                if source.length() != MODULE_NUMBER_MARK:
                    raise source.damaged("a module's field is not written as one")
                source.length()
                self._values.module_content()
            case _:
                self._key(number)
        return True

    def _key(self, number: int) -> None:
        key = self._values.string()
        if not self._is_trusted:
            self._hashes.append(hash(key) ^ self._database_hash)
        empty = self._values.empty
        kind = self._values.read(number)
        self._note_too_large(key)
        self._note_key(kind, is_empty=self._values.empty > empty)

    def _note_key(self, kind: Type, *, is_empty: bool = False) -> None:
        self._kinds[kind] += 1
        keys = self._content.keys
        keys[self._database] = keys.get(self._database, 0) + 1
        if is_empty or self._is_expired:
            self._note_vanishing(kind, 1)
        self._content.expiring += self._is_expiring
        self._content.expired += self._is_expired
        self._is_expiring = self._is_expired = False

    def _note_too_large(self, key: bytes) -> None:
        """Of the key that was just read; the first ones are named."""
        if size := self._values.too_large:
            self._values.too_large = 0
            if len(self._content.obstacles) < _MOST_NAMED:
                name = printable(key[:_MOST_NAME_BYTES].decode(errors="surrogateescape"))
                self._content.obstacles.append(f"the key {name} has {size:,} bytes in one piece. {IN_SMALLER_PIECES}")

    def _note_vanishing(self, kind: Type, count: int) -> None:
        vanishing = self._content.vanishing
        vanishing[self._database] = vanishing.get(self._database, 0) + count
        self._vanishing_kinds[kind] += count

    def _function(self) -> None:
        self._note_library(self._values.string())

    def _note_library(self, code: bytes) -> None:
        is_too_much = self._library_bytes > MOST_LIBRARY_BYTES
        self._library_bytes += len(code)
        if self._library_bytes > MOST_LIBRARY_BYTES:
            limit = f"more than {MOST_LIBRARY_BYTES >> 20} MiB of code"
            if not self._is_trusted:
                raise LimitExceededError(
                    f"The function libraries of the file have {limit}; so much cannot be tried before the import.",
                    next_step=_LESS_CODE,
                )
            if not is_too_much:
                self._content.obstacles.append(f"its function libraries have {limit}. {_LESS_CODE}")
        elif not self._is_trusted:
            self._content.libraries.append(Library(name_of(code), code, beyond_registering(code)))
        elif beyond := beyond_registering(code):
            self._content.obstacles.append(
                f"the function library {name_of(code)!r} {beyond}. A server that has it already takes the "
                "file: load it there first (FUNCTION LOAD)."
            )

    def _expires(self, moment_ms: int) -> None:
        """The next key does; the last moment before it counts."""
        if moment_ms < NEVER_MS:
            raise self._source.damaged("a key expires before 1970, on which a Valkey ends itself")
        self._is_expiring = moment_ms != NEVER_MS
        self._is_expired = self._is_expiring and moment_ms < self._now_ms

    def _field(self) -> None:
        start = self._source.offset - 1
        name, value = self._values.string(), self._values.string()
        fields = self._content.fields
        # As servers compare it: strcasecmp, up to the first zero byte.
        match name.partition(b"\0")[0].lower():
            case b"lua":
                self._note_script(start)
                return
            case b"slot-info" if not self._is_trusted and not _SLOT_INFO.fullmatch(value):
                raise self._source.damaged("numbers of a slot that are none")
        if len(fields) < _MOST_FIELDS and len(name) + len(value) <= _MOST_FIELD_BYTES:
            fields[name.decode("utf-8", "replace")] = value.decode("utf-8", "replace")

    def _note_script(self, start: int) -> None:
        """A field with a script was read."""
        self._content.scripts += 1
        if self._is_trusted:
            return
        spans = self._content.script_spans
        if spans and spans[-1][1] == start:
            start = spans.pop()[0]
        spans.append((start, self._source.offset))
        if len(spans) > _MOST_SCRIPT_SPANS:
            raise LimitExceededError(
                f"The file has scripts (fields `lua`) in more than {_MOST_SCRIPT_SPANS:,} places; so many cannot be "
                "taken out of it.",
                next_step="Where it comes from, have the server forget them (SCRIPT FLUSH), then export again.",
            )

    def _fast_keys(self) -> None:
        """Strings with short keys, with or without expiry, as long as they lie whole in the buffer.

        Nearly all keys of large servers are such. `_section` reads them just as well; this keeps a walk from being
        slower than the server that writes the file.
        """
        source = self._source
        buffer, position = source.buffer, source.position
        end = len(buffer)
        append, salt, now_ms = self._hashes.append, self._database_hash, self._now_ms
        is_deep = not self._is_trusted
        count = expiring = expired = packed_away_bytes = 0
        try:
            while count < FAST_KEYS:
                at = position
                first = buffer[at]
                if first:
                    if first != 0xFC or buffer[at + 9] or buffer[at + 8] > MOST_OF_A_MOMENT:
                        break
                    at += 9
                size = buffer[at + 1]
                if size < 0x40:
                    key = at + 2
                elif size < 0x80:
                    size = (size & 0x3F) << 8 | buffer[at + 2]
                    key = at + 3
                else:
                    break
                value = key + size
                size = buffer[value]
                packed_away = 0
                if size < 0x40:
                    after = value + 1 + size
                elif size < 0x80:
                    after = value + 2 + ((size & 0x3F) << 8 | buffer[value + 1])
                elif size == ENCODED_LZF:
                    after, packed_away = _after_lzf(buffer, value + 1, is_deep=is_deep)
                elif size in INTEGER_BYTES:
                    after = value + 1 + INTEGER_BYTES[size]
                else:
                    break
                if after > end:
                    break
                if first:
                    expiring += 1
                    expired += int.from_bytes(buffer[at - 8 : at], "little", signed=True) < now_ms
                if is_deep:
                    append(hash(buffer[key:value]) ^ salt)
                count += 1
                packed_away_bytes += packed_away
                position = after
        except (IndexError, lzf.LzfError):
            # What is cut by the buffer's end, or wrong, is met again by the careful way.
            pass
        source.position = position
        self._values.packed_away_bytes += packed_away_bytes
        if count:
            self._note_strings(count, expiring=expiring, expired=expired)

    def _note_strings(self, count: int, *, expiring: int, expired: int) -> None:
        content = self._content
        self._kinds[Type.STRING] += count
        content.keys[self._database] = content.keys.get(self._database, 0) + count
        content.expiring += expiring
        content.expired += expired
        if expired:
            self._note_vanishing(Type.STRING, expired)

    def _note(self) -> None:
        self._distinct.add(self._hashes)
        self._on_progress(self._content.key_count, self._source.offset)

    def _close(self) -> None:
        """After the end mark: the checksum, and nothing else."""
        source, content = self._source, self._content
        if content.header.has_crc:
            found = source.crc()
            expected = int.from_bytes(source.take(CRC_BYTES), "little")
            content.has_checksum = expected != 0
            if content.has_checksum and found != expected:
                raise _wrong_checksum()
        content.size_bytes = source.offset
        rest = source.drain()
        if rest.size_bytes:
            raise _too_long(rest, content)
        if content.version > NEWEST_VERSION[content.flavour]:
            content.doubt = f"Version {content.header.magic} is newer than this program knows."
        self._note()

    def _require_sound(self) -> None:
        """What only all of the file shows."""
        for database, hint in self._hints.items():
            there = self._content.keys.get(database, 0)
            if hint > 4 * there + _HINT_SLACK:
                raise self._source.damaged(f"it announces {hint} keys in database {database}, where {there} are")
        if self._distinct.has_any_twice():
            raise ArchiveDamagedError(
                "The file holds the same key twice, or the same member twice in one value; a server would stop while "
                "loading it.",
                next_step="Export again; if that does not help, the program that made the file is at fault.",
            )

    def _explain(self, error: ServiceError) -> None:
        """Something does not hold: say whether the bytes were changed on their way, or were written like that."""
        content = self._content
        if content.header.has_crc:
            rest = self._source.drain()
            content.has_checksum = rest.last != 0
            if content.has_checksum and rest.crc != rest.last:
                raise _wrong_checksum() from error
        if not self._is_trusted:
            raise error
        content.doubt = f"{error.text} {error.next_step}" if isinstance(error, LimitExceededError) else error.text
        content.size_bytes = self._source.offset


def _by_name(kinds: Mapping[Type, int]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for kind, count in kinds.items():
        found[KIND_OF[kind]] += count
    return dict(found)


def _after_lzf(buffer: bytes, position: int, *, is_deep: bool) -> tuple[int, int]:
    """Where a compressed string ends, and by how much it is shorter than its content; IndexError when it ends beyond
    the buffer, or its lengths are long ones."""
    packed_size = buffer[position]
    position += 1
    if packed_size >= 0x40:
        if packed_size >= 0x80:
            raise IndexError
        packed_size = (packed_size & 0x3F) << 8 | buffer[position]
        position += 1
    size = buffer[position]
    position += 1
    if size >= 0x40:
        if size < 0x80:
            size = (size & 0x3F) << 8 | buffer[position]
            position += 1
        elif size == 0x80:
            size = int.from_bytes(buffer[position : position + 4])
            position += 4
        else:
            raise IndexError
    end = position + packed_size
    if is_deep:
        if end > len(buffer):
            raise IndexError
        lzf.check(buffer[position:end], size)
    return end, size - packed_size


def _wrong_checksum() -> ArchiveDamagedError:
    return ArchiveDamagedError(
        "The file was damaged: its content does not have the checksum that stands at its end.",
        next_step="Take another copy of the file, or export again.",
    )


def _too_long(rest: Rest, content: RdbContent) -> ArchiveError:
    if rest.head.startswith(b"*"):
        return ArchiveWrongKindError(
            f"This is an append-only file (AOF): {rest.size_bytes} bytes of commands follow a snapshot, and an import "
            "would lose them.",
            next_step="Export the server that wrote it, or have it make a snapshot with BGSAVE.",
        )
    return ArchiveDamagedError(
        f"The file goes on for {rest.size_bytes} bytes after its end at byte {content.size_bytes}.",
        next_step="Take another copy of the file, or export again.",
    )
