"""The beginning and the end of an RDB file, the snapshot format of Redis and Valkey: what it says of itself, and its
checksum.

The version in the magic decides who can load a file: servers read their own and older versions, never newer ones, and
Valkey 9 has a magic of its own, which no Redis knows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import anycrc  # type: ignore[import-untyped]  # has no annotations

HEAD_BYTES = 4096
"""More than the magic and all fields that servers write before the data."""
CRC_BYTES = 8
END_BYTES = 1 + CRC_BYTES
"""The end mark and the checksum of all before it, the mark included."""
FIRST_VERSION_WITH_CRC = 5
EOF_OPCODE = 0xFF
AUX_OPCODE = 0xFA
_MAGIC = re.compile(rb"(REDIS)(\d{4})|(VALKEY)(\d{3})")
_CRC = anycrc.CRC(width=64, poly=0xAD93D23594C935A9, init=0, refin=True, refout=True, xorout=0)


@dataclass(frozen=True)
class RdbHeader:
    """What stands before the data.

    Attributes:
        flavour: "redis" or "valkey": whose version numbers these are.
        fields: for example "redis-ver", "valkey-ver", "ctime" (seconds since 1970), "used-mem" (bytes); what a writer
            leaves out is missing.
    """

    flavour: str
    version: int
    fields: dict[str, str] = field(default_factory=dict)

    @property
    def magic(self) -> str:
        return f"VALKEY{self.version:03}" if self.flavour == "valkey" else f"REDIS{self.version:04}"

    @property
    def has_crc(self) -> bool:
        """Whether eight bytes of checksum follow the end mark; they may still be zero for none."""
        return self.flavour == "valkey" or self.version >= FIRST_VERSION_WITH_CRC

    @property
    def writer(self) -> str:
        """The server that wrote it, for example "Valkey 9.1.2"; as much of that as is known."""
        if "valkey-ver" in self.fields:
            return f"Valkey {self.fields['valkey-ver']}"
        name = "Valkey" if self.flavour == "valkey" else "Redis"
        return f"{name} {self.fields['redis-ver']}" if "redis-ver" in self.fields else ""


def read_magic(head: bytes) -> RdbHeader | None:
    """The first nine bytes of a file; None for a file that is no RDB."""
    match = _MAGIC.match(head)
    if match is None:
        return None
    if match[1]:
        return RdbHeader("redis", int(match[2]))
    return RdbHeader("valkey", int(match[4]))


def read_header(head: bytes) -> RdbHeader | None:
    """The magic and the fields after it, as far as `head` reaches; None for a file that is no RDB."""
    header = read_magic(head)
    position = 9
    while header is not None and head[position : position + 1] == bytes([AUX_OPCODE]):
        name, position = _read_string(head, position + 1)
        value, position = _read_string(head, position)
        if name is None or value is None:
            break
        header.fields[name] = value
    return header


def _read_string(head: bytes, position: int) -> tuple[str | None, int]:
    """A short string or an integer; None for what is cut off or written in another way."""
    first = head[position] if position < len(head) else 0xFF
    if first < 0x40:
        length, start = first, position + 1
    elif first < 0x80 and position + 1 < len(head):
        length, start = (first & 0x3F) << 8 | head[position + 1], position + 2
    elif first in (0xC0, 0xC1, 0xC2):
        end = position + 1 + (1 << (first & 3))
        return (
            (str(int.from_bytes(head[position + 1 : end], "little", signed=True)), end)
            if end <= len(head)
            else (None, end)
        )
    else:
        return None, position
    end = start + length
    return (head[start:end].decode("utf-8", "replace"), end) if end <= len(head) else (None, end)


def crc64(data: bytes | bytearray | memoryview, crc: int = 0) -> int:
    """The checksum that closes an RDB (Jones' CRC-64), over `data` after what gave `crc`."""
    result: int = _CRC.calc(data, crc)
    return result
