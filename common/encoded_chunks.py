"""Chunks as they lie on the wire, made and found by hand: a message of protobuf would hold a second copy of each, and
its serializer make a third.

The one fact to know: `Frame.chunk`, `StageRequest.frame` and `ImportAppRequest.frame` all are field 2 (a test holds
them to it), so one function finds what lies in any of them.
"""

from __future__ import annotations

FIELD_2 = b"\x12"
"""Tag of field 2 with wire type LEN."""
Buffer = bytes | memoryview


def encoded_chunk(chunk: bytes) -> tuple[bytes, memoryview]:
    """`Frame(chunk=chunk)` encoded, made with a single copy; and the chunk in it."""
    head = FIELD_2 + varint(len(chunk))
    encoded = b"".join((head, chunk))
    return encoded, memoryview(encoded)[len(head) :]


def content_of_field_2(encoded: Buffer) -> memoryview | None:
    """A view of what field 2 holds, when the message is that field and nothing else."""
    if not encoded or encoded[0] != FIELD_2[0]:
        return None
    size, shift, position = 0, 0, 1
    while position < len(encoded) and shift < 64:
        byte = encoded[position]
        size |= (byte & 0x7F) << shift
        position += 1
        shift += 7
        if byte < 0x80:
            return memoryview(encoded)[position:] if position + size == len(encoded) else None
    return None


def varint(value: int) -> bytes:
    """A length as protobuf writes it."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
