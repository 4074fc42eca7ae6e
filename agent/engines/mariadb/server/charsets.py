"""The bytes of a definition as text, and that text as the same bytes.

The one fact to know: a server keeps what a client has sent, whether that is text of the client's character set or not,
and says it as it is only where it is told to bring it into no other (`AS_KEPT`). So every byte has a character here.
"""

from __future__ import annotations

import codecs

from common.errors import ToolFailedError

KNOWN = frozenset({"utf8mb4", "utf8mb3", "utf8", "latin1", "ascii"})
"""In which definitions are made again. In these no character of several bytes holds that of a quote or backslash."""
AS_KEPT = "SET character_set_results = binary;"
_LATIN1 = "latin1"
# Python's has no characters for five bytes that the servers' has.
_LATIN1_CHARACTERS = "".join(bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in range(256))
_LATIN1_BYTES = codecs.charmap_build(_LATIN1_CHARACTERS)


def text_of(kept: bytes, charset: str) -> str:
    """What a server keeps of what was made under a character set, each of its bytes told apart: what is no character
    of the set is a surrogate, and in sets that are not `KNOWN` all that is no UTF-8."""
    if charset == _LATIN1:
        return codecs.charmap_decode(kept, "strict", _LATIN1_CHARACTERS)[0]
    return kept.decode("ascii" if charset == "ascii" else "utf-8", "surrogateescape")


def bytes_of(text: str, charset: str) -> bytes:
    """
    Raises:
        ToolFailedError: the set does not have one of the characters.
    """
    try:
        if charset == _LATIN1:
            return codecs.charmap_encode(text, "strict", _LATIN1_BYTES)[0]
        return text.encode("ascii" if charset == "ascii" else "utf-8", "surrogateescape")
    except UnicodeEncodeError as failure:
        lacking = text[failure.start : failure.end].encode("utf-8", "replace").decode()
        raise ToolFailedError(f"The character set {charset} does not have {lacking!r}.") from failure


def is_utf8(charset: str) -> bool:
    """Whether it is one of those in which servers say names, whatever the character set of a definition is."""
    return charset.startswith("utf8")
