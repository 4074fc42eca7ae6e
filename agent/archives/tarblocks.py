"""A tar's header blocks, both ways: POSIX.1-2001 (pax) is written; that, ustar, GNU and the old format are read.

The one fact to know: 512 bytes hold eight gigabytes of size, 100 bytes of name and whole seconds, so what does not fit
goes into a pax record before the header, and there it may be any bytes of any length.
"""

from __future__ import annotations

import base64
import functools
import re
from collections.abc import Mapping
from urllib.parse import quote, unquote_to_bytes

from agent.archives.members import Kind, Member, printable
from common.errors import ArchiveDamagedError

BLOCK = 512
EMPTY = bytes(BLOCK)
NAME, MODE, UID, GID = slice(0, 100), slice(100, 108), slice(108, 116), slice(116, 124)
SIZE, MTIME, CHECKSUM, FLAG = slice(124, 136), slice(136, 148), slice(148, 156), slice(156, 157)
LINK_TARGET, MAGIC, USER, GROUP = slice(157, 257), slice(257, 263), slice(265, 297), slice(297, 329)
PREFIX = slice(345, 500)
"""Where a header block has its fields (ustar; pax(1) of POSIX)."""
REGULAR, LINK, SYMLINK, CHARACTER, DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
PAX, PAX_GLOBAL, PAX_SOLARIS = b"x", b"g", b"X"
GNU_NAME, GNU_LINK, GNU_SPARSE, GNU_LABEL, GNU_DIRECTORY = b"L", b"K", b"S", b"V", b"D"
_XATTR = "SCHILY.xattr."
"""star's keyword, which GNU tar, bsdtar and Docker read too."""
_ENCODED_XATTR = "LIBARCHIVE.xattr."
"""bsdtar's: the name is percent-encoded, the value in base64 without its padding."""
_GNU_ESCAPES = {"%25": "%", "%3D": "="}
"""Of names behind star's keyword, by GNU tar; others write all names there as they are."""
_FLAGS = {Kind.FILE: REGULAR, Kind.HARD_LINK: LINK, Kind.SYMLINK: SYMLINK, Kind.DIRECTORY: DIRECTORY}
_OCTAL_7, _OCTAL_11 = 8**7, 8**11
_GNU_ESCAPE = re.compile("|".join(_GNU_ESCAPES))
_TIME = re.compile(rb"(-?)([0-9]{1,18})(?:\.([0-9]*))?")


# Writing


def header_of(
    member: Member, *, name: str | None = None, stored_bytes: int = 0, extra: Mapping[str, bytes] = {}
) -> bytes:
    """The blocks that announce a member.

    Args:
        name: what stands in the header when it is not the member's own (a sparse file has its name in `extra`).
        stored_bytes: length of the data that follows, without padding.
        extra: further pax records.
    """
    raw_name = (member.name if name is None else name).encode(errors="surrogateescape")
    if member.kind is Kind.DIRECTORY:
        raw_name += b"/"
    target = member.link_target.encode(errors="surrogateescape")
    records: dict[str, bytes] = {}
    if len(raw_name) > 100 or not raw_name.isascii():
        records["path"] = raw_name
    if len(target) > 100 or not target.isascii():
        records["linkpath"] = target
    seconds, nanoseconds = divmod(member.mtime_ns, 1_000_000_000)
    if nanoseconds or not 0 <= seconds < _OCTAL_11:
        records["mtime"] = _time_text(member.mtime_ns)
        seconds = min(max(seconds, 0), _OCTAL_11 - 1)
    if stored_bytes >= _OCTAL_11:
        records["size"] = b"%d" % stored_bytes
    for keyword, number in (("uid", member.uid), ("gid", member.gid)):
        if number >= _OCTAL_7:
            records[keyword] = b"%d" % number
    for keyword, text in (("uname", member.user), ("gname", member.group)):
        if len(text) > 31 or not text.isascii():
            records[keyword] = text.encode(errors="surrogateescape")
    records.update(extra)
    for attribute, value in member.attributes.items():
        keyword, content = _attribute_record(attribute, value)
        records[keyword] = content
    block = _ustar(
        raw_name[:100],
        mode=member.mode,
        owner=(member.uid if "uid" not in records else 0, member.gid if "gid" not in records else 0),
        size=stored_bytes if "size" not in records else 0,
        seconds=seconds,
        flag=_FLAGS[member.kind],
        target=target[:100],
        names=_names(member.user, member.group),
    )
    return pax_blocks(records, about=raw_name) + block if records else block


def pax_blocks(records: Mapping[str, bytes], *, about: bytes) -> bytes:
    """A pax header: key and value records for the header that follows."""
    content = b"".join(_record(key.encode(errors="surrogateescape"), value) for key, value in records.items())
    name = b"PaxHeaders/" + about.rstrip(b"/").rpartition(b"/")[2][:80]
    header = _ustar(name, mode=0o644, owner=(0, 0), size=len(content), seconds=0, flag=PAX, target=b"", names=bytes(64))
    return header + content + padding(len(content))


def _attribute_record(name: str, value: bytes) -> tuple[str, bytes]:
    """A record's keyword ends at its first "=", and GNU tar takes two escapes in it for what they stand for."""
    if "=" not in name and not any(escape in name for escape in _GNU_ESCAPES):
        return _XATTR + name, value
    encoded = quote(name.encode(errors="surrogateescape"), safe="")
    return _ENCODED_XATTR + encoded, base64.b64encode(value).rstrip(b"=")


def padding(size: int) -> bytes:
    """What fills the last block of `size` bytes."""
    return bytes(-size % BLOCK)


def _ustar(
    name: bytes,
    *,
    mode: int,
    owner: tuple[int, int],
    size: int,
    seconds: int,
    flag: bytes,
    target: bytes,
    names: bytes,
) -> bytes:
    numbers = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode & 0o7777, *owner, size, seconds)
    start = name.ljust(100, b"\0") + numbers
    end = (flag + target.ljust(100, b"\0") + b"ustar\x0000" + names).ljust(BLOCK - 156, b"\0")
    return b"%b%06o\0 %b" % (start, sum(start) + 8 * 32 + sum(end), end)


@functools.lru_cache(maxsize=256)
def _names(user: str, group: str) -> bytes:
    return b"".join(
        text.encode(errors="surrogateescape").ljust(32, b"\0") if len(text) <= 31 and text.isascii() else bytes(32)
        for text in (user, group)
    )


def _record(key: bytes, value: bytes) -> bytes:
    """ "length key=value\\n", the length counting itself."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) > len(str(rest)):
        length += 1
    return b"%d %b=%b\n" % (length, key, value)


def _time_text(nanoseconds: int) -> bytes:
    seconds, fraction = divmod(abs(nanoseconds), 1_000_000_000)
    text = f"{'-' if nanoseconds < 0 else ''}{seconds}.{fraction:09d}"
    return text.rstrip("0").rstrip(".").encode()


# Reading


def is_header(block: bytes) -> bool:
    """Whether the block's checksum says that it is a header."""
    try:
        stated = number_of(block[CHECKSUM])
    except ArchiveDamagedError:
        return False
    # Some old programs summed signed characters; all that is written in this century is unsigned.
    return stated == sum(block) - sum(block[CHECKSUM]) + 256


def number_of(raw: bytes) -> int:
    """A numeric field: octal digits, or binary when its first bit is set (GNU)."""
    if raw[:1] in (b"\x80", b"\xff"):
        return int.from_bytes(raw[1:], "big", signed=False) - (256 ** (len(raw) - 1) if raw[:1] == b"\xff" else 0)
    digits = raw.replace(b"\0", b" ").strip().split(b" ")[0] or b"0"
    if digits.strip(b"01234567"):
        raise ArchiveDamagedError("The archive is damaged: a header holds no number where one belongs.")
    return int(digits, 8)


def text_of(raw: bytes) -> str:
    """A text field up to its NUL."""
    return raw.partition(b"\0")[0].decode(errors="surrogateescape")


def name_of(block: bytes) -> str:
    """The name in a header block, with the prefix that ustar (and not GNU) has."""
    name = text_of(block[NAME])
    prefix = text_of(block[PREFIX]) if block[MAGIC] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def parse_pax(content: bytes) -> dict[str, bytes]:
    """The records of a pax header; a key that repeats keeps its last value, but for GNU's old sparse lists."""
    records: dict[str, bytes] = {}
    pairs: list[bytes] = []
    position = 0
    while position < len(content) and content[position] != 0:
        space = content.find(b" ", position, position + 12)
        digits = content[position:space] if space > 0 else b""
        end = position + int(digits) if digits.isdigit() else 0
        key, equals, value = content[space + 1 : max(end - 1, 0)].partition(b"=")
        if end <= space or end > len(content) or content[end - 1 : end] != b"\n" or not equals:
            raise ArchiveDamagedError("The archive is damaged: a pax header cannot be read.")
        name = key.decode(errors="surrogateescape")
        if name in ("GNU.sparse.offset", "GNU.sparse.numbytes"):
            pairs.append(value)
        else:
            records[name] = value
        position = end
    if pairs:
        # Format 0.0 says one pair after the other; joined, it is format 0.1.
        records["GNU.sparse.map"] = b",".join(pairs)
    return records


def attributes_of(records: Mapping[str, bytes]) -> dict[str, bytes]:
    """The extended attributes that pax records say; bsdtar says each of them twice."""
    attributes = {}
    for key, value in records.items():
        if key.startswith(_ENCODED_XATTR):
            raw_name = unquote_to_bytes(key.removeprefix(_ENCODED_XATTR).encode(errors="surrogateescape"))
            attributes[raw_name.decode(errors="surrogateescape")] = _base64_of(value)
    told = {_joined(name, value) for name, value in attributes.items()}
    for key, value in records.items():
        if not key.startswith(_XATTR):
            continue
        name = key.removeprefix(_XATTR)
        # Said a second time: encoded (libarchive 3.6), or as it is, and then cut at its "=".
        if _ENCODED_XATTR + name not in records and _joined(name, value) not in told:
            attributes[_GNU_ESCAPE.sub(lambda escape: _GNU_ESCAPES[escape[0]], name)] = value
    return attributes


def _joined(name: str, value: bytes) -> bytes:
    return name.encode(errors="surrogateescape") + b"=" + value


def _base64_of(value: bytes) -> bytes:
    unpadded = value.rstrip(b"=")
    try:
        return base64.b64decode(unpadded + b"=" * (-len(unpadded) % 4))
    except ValueError as failure:
        raise ArchiveDamagedError("The archive is damaged: an extended attribute cannot be read.") from failure


def nanoseconds_of(value: bytes) -> int:
    """A pax time: decimal seconds with any number of digits after the point."""
    match = _TIME.fullmatch(value.strip())
    if match is None:
        raise ArchiveDamagedError(f"The archive is damaged: {printable(value.decode(errors='replace'))} is no time.")
    nanoseconds = int(match[2]) * 1_000_000_000 + int((match[3] or b"")[:9].ljust(9, b"0"))
    return -nanoseconds if match[1] else nanoseconds


def decimal_of(value: bytes) -> int:
    """A number of a pax record."""
    if not value.isdigit() or len(value) > 19:
        raise ArchiveDamagedError("The archive is damaged: a pax header holds no number where one belongs.")
    return int(value)
