"""A walk that also sums up what the keys hold: for a fingerprint, or for a comparison key by key.

Slower than counting, since every value has to be unpacked: 0.6 million short strings a second instead of 2 million, and
10 MB/s of text that the server compressed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from agent.engines.rdb.content import RdbContent
from agent.engines.rdb.contents import ContentReader
from agent.engines.rdb.layout import Type
from agent.engines.rdb.sums import NO_MOMENT, ContentSums, head_of
from agent.engines.rdb.walk import FAST_KEYS, KIND_OF, MOST_OF_A_MOMENT, Walk
from common.rdb import RdbHeader


class SummingWalk(Walk):
    """Over a file that a server is writing, or that was looked into before."""

    def __init__(
        self,
        read: Callable[[int], bytes],
        *,
        has_keys: bool = False,
        on_header: Callable[[RdbHeader], None] = lambda header: None,
        on_progress: Callable[[int, int], None] = lambda keys, size_bytes: None,
    ) -> None:
        """
        Args:
            has_keys: a digest of each key that has not expired is wanted; takes 16 bytes for each.
        """
        super().__init__(read, is_trusted=True, on_header=on_header, on_progress=on_progress)
        self._sums = ContentSums(has_keys=has_keys)
        self._has_keys = has_keys
        self._moment = NO_MOMENT

    def run(self) -> RdbContent:
        """As Walk.run; `sums` are missing where something could not be read."""
        content = super().run()
        if not content.doubt and self._contents.is_complete:
            content.sums = self._sums.parts()
            content.key_digests = {number: bytes(digests) for number, digests in (self._sums.keys or {}).items()}
        return content

    def _begin(self, content: RdbContent) -> None:
        super()._begin(content)
        self._contents = ContentReader(self._source, self._values)

    def _key(self, number: int) -> None:
        name = self._values.string()
        hashed = hashlib.blake2b(head_of(len(name), self._moment) + name)
        kind = self._contents.read(number, hashed)
        self._sums.add_key(self._database, KIND_OF[kind], name, hashed.digest(), is_listed=not self._is_expired)
        self._moment = NO_MOMENT
        self._note_too_large(name)
        self._note_key(kind)

    def _function(self) -> None:
        code = self._values.string()
        self._note_library(code)
        self._sums.add_function(code)

    def _expires(self, moment_ms: int) -> None:
        super()._expires(moment_ms)
        self._moment = moment_ms.to_bytes(8, "little", signed=True)

    def _fast_keys(self) -> None:
        """As there, for strings that lie as they are; compressed ones and numbers take the other way."""
        if self._has_keys:
            return
        source = self._source
        buffer, position = source.buffer, source.position
        end, now_ms = len(buffer), self._now_ms
        blake2b, from_bytes = hashlib.blake2b, int.from_bytes
        total = count = expiring = expired = 0
        try:
            while count < FAST_KEYS:
                at = position
                if buffer[at]:
                    if buffer[at] != 0xFC or buffer[at + 9] or buffer[at + 8] > MOST_OF_A_MOMENT:
                        break
                    moment = buffer[at + 1 : at + 9]
                    at += 9
                else:
                    moment = NO_MOMENT
                size = buffer[at + 1]
                if size >= 0x40:
                    break
                value = at + 2 + size
                content_size = buffer[value]
                content = value + 1
                if content_size >= 0x40:
                    if content_size >= 0x80:
                        break
                    content_size = (content_size & 0x3F) << 8 | buffer[content]
                    content += 1
                after = content + content_size
                if after > end:
                    break
                hashed = blake2b(moment + size.to_bytes(4) + buffer[at + 2 : value] + buffer[content:after])
                total += from_bytes(hashed.digest())
                if moment is not NO_MOMENT:
                    expiring += 1
                    expired += from_bytes(moment, "little", signed=True) < now_ms
                count += 1
                position = after
        except IndexError:
            # What is cut by the buffer's end is met again by the careful way.
            pass
        source.position = position
        if count:
            self._note_strings(count, expiring=expiring, expired=expired)
            self._sums.add(self._database, KIND_OF[Type.STRING], count, total)
