"""What is in an RDB file: what a walk through it found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from common.rdb import RdbHeader


class Library(msgspec.Struct, frozen=True):
    """A function library.

    Attributes:
        beyond: what its top level does besides registering; see agent.engines.rdb.lua.
    """

    name: str
    code: bytes
    beyond: str


class RdbContent(msgspec.Struct, kw_only=True):
    """What a file holds.

    Attributes:
        fields: what its writer says of itself; see common.rdb.RdbHeader.
        keys: by number of the database; of them `vanishing` are gone for who reads a server that has loaded them, being
            expired or empty.
        highest_database: selected in it, with keys or not.
        expiring: keys that have a time to live; `expired` of them have outlived it already.
        empty: keys without content, which servers leave out.
        kinds: number of keys by what people call their type, `vanishing_kinds` likewise.
        module_types: number of values by the name of a module's type, nine characters.
        module_fields: what modules wrote beside the keys, likewise.
        functions: function libraries; `libraries` are these, unless the file is trusted.
        scripts: that its server had cached, see agent.engines.rdb.stripping; `script_spans` are where the fields with
            them begin and end, unless the file is trusted or they were taken out.
        size_bytes: of the whole file; `unpacked_bytes` with the strings that are compressed in it in their real length.
        has_checksum: False: the writer left it out, so a changed byte need not show.
        body_bytes, body_crc: of everything before the end mark, for who puts something there.
        sums: what its keys hold, as parts of a fingerprint (agent.engines.rdb.sums); None: nobody asked, or it cannot
            be told.
        key_digests: by database, of each key, where they were asked for.
        obstacles: why an import would refuse it, as ends of a sentence, as far as that was seen in one that is trusted.
        doubt: an archive of this server that this program cannot read through, and why; see `is_trusted` in the walk.
    """

    flavour: str
    version: int
    fields: dict[str, str] = {}
    keys: dict[int, int] = {}
    vanishing: dict[int, int] = {}
    highest_database: int = 0
    expiring: int = 0
    expired: int = 0
    empty: int = 0
    kinds: dict[str, int] = {}
    vanishing_kinds: dict[str, int] = {}
    module_types: dict[str, int] = {}
    module_fields: dict[str, int] = {}
    functions: int = 0
    libraries: list[Library] = []
    scripts: int = 0
    script_spans: list[tuple[int, int]] = []
    size_bytes: int = 0
    unpacked_bytes: int = 0
    has_checksum: bool = False
    body_bytes: int = 0
    body_crc: int = 0
    sums: dict[str, str] | None = None
    key_digests: dict[int, bytes] = {}
    obstacles: list[str] = []
    doubt: str = ""

    @property
    def header(self) -> RdbHeader:
        return RdbHeader(self.flavour, self.version, self.fields)

    @property
    def key_count(self) -> int:
        return sum(self.keys.values())

    @property
    def staying(self) -> dict[int, int]:
        """The keys that a server has when it has loaded the file; only databases that have any."""
        return _without(self.keys, self.vanishing)

    @property
    def staying_kinds(self) -> dict[str, int]:
        """The same by `kinds`."""
        return _without(self.kinds, self.vanishing_kinds)


_Thing = TypeVar("_Thing", int, str)


def _without(counts: Mapping[_Thing, int], gone: Mapping[_Thing, int]) -> dict[_Thing, int]:
    left = {thing: count - gone.get(thing, 0) for thing, count in counts.items()}
    return {thing: count for thing, count in left.items() if count}
