"""Metadata as a MinIO since May 2025 says it in an answer: what is not printable ASCII in encoded words of mail.

A client may have stored such words (RFC 2047) itself. What a server says of both is the same: see stored_metadata.py.
"""

from __future__ import annotations

import base64
import binascii
import re

_WORD = re.compile(r"=\?UTF-8\?([bq])\?([!->@-~]*)\?=")
_MOST_CHARACTERS, _MOST_BASE64_BYTES = 63, 45
"""Of the content of a word that is one of several."""
_ESCAPED = re.compile(rb"=([0-9A-F]{2})")


def decoded(value: str) -> str:
    """What a MinIO says so, bytes that are no UTF-8 as surrogates; the value itself where none says it of anything."""
    found = [_WORD.fullmatch(word) for word in value.split(" ")]
    words = [word for word in found if word]
    try:
        text = b"".join(_content(word[1], word[2]) for word in words).decode(errors="surrogateescape")
    except binascii.Error:
        return value
    kinds = {word[1] for word in words}
    return text if len(words) == len(found) and value in {encoded(text, kind) for kind in kinds} else value


def encoded(text: str, kind: str) -> str:
    """What a MinIO says of a text.

    Args:
        kind: "b", of a text with certain characters, or "q".
    """
    if all(" " <= char <= "~" or char == "\t" for char in text):
        return text
    contents = _in_base64(text) if kind == "b" else _in_quotes(text)
    return " ".join(f"=?UTF-8?{kind}?{content}?=" for content in contents)


def _content(kind: str, content: str) -> bytes:
    if kind == "b":
        return base64.b64decode(content, validate=True)
    return _ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()), content.replace("_", " ").encode())


def _in_base64(text: str) -> list[str]:
    whole = base64.b64encode(_raw(text)).decode()
    if len(whole) <= _MOST_CHARACTERS:
        return [whole]
    words = [b""]
    for char in text:
        if len(words[-1]) + len(_raw(char)) > _MOST_BASE64_BYTES:
            words.append(b"")
        words[-1] += _raw(char)
    return [base64.b64encode(word).decode() for word in words]


def _in_quotes(text: str) -> list[str]:
    words = [""]
    for char in text:
        said = char if " " <= char <= "~" and char not in "=?_" else "".join(f"={byte:02X}" for byte in _raw(char))
        if len(words[-1]) + len(said) > _MOST_CHARACTERS:
            words.append("")
        words[-1] += said.replace(" ", "_")
    return words


def _raw(text: str) -> bytes:
    return text.encode(errors="surrogateescape")
