"""What becomes of a replication stream that is kept, however it is cut into pieces."""

from __future__ import annotations

import pytest

from agent.engines.redis.commands import Commands
from agent.engines.redis.connection import encode
from common.errors import ToolFailedError

AT_MS = 1_700_000_000_000
SELECT, MULTI, EXEC, PLAIN = encode("SELECT", 0), encode("MULTI"), encode("EXEC"), encode("SET", "a", "1")
LOOKS_LIKE_ONE = encode("LPUSH", "list", encode("PUBLISH", "news", "a"), "*3\r\n$7\r\nPUBLISH")
DROPPED = {
    "message": encode("PUBLISH", "news", "text"),
    "message of a shard": encode("SPUBLISH", "news", "x" * 10_000),
    "in small letters": encode("publish", "news", encode("SET", "a", "1")),
    "script": encode("SCRIPT", "LOAD", "return 1"),
    "scripts dropped": encode("SCRIPT", "FLUSH"),
    "sign of life": encode("PING"),
    "question": encode("REPLCONF", "GETACK", "*"),
}
UNTIL = {
    encode("SET", "k", "v", "PX", 1500): 1500,
    encode("set", "k", "v", "GET", "ex", 15): 15_000,
    encode("SETEX", "k", 15, "v"): 15_000,
    encode("PSETEX", "k", 15, "v"): 15,
    encode("GETEX", "k", "PX", 70): 70,
    encode("EXPIRE", "k", 15): 15_000,
    encode("PEXPIRE", "k", 15): 15,
    encode("RESTORE", "k", 20, "ABSTTL", "REPLACE", "FREQ", 1): 20,
}
AS_THEY_ARE = [
    PLAIN,
    encode("SET", "k", "EX", "KEEPTTL"),
    encode("SET", "k", "v", "PXAT", AT_MS),
    encode("SET", "EX", "PX"),
    encode("GETEX", "k", "PXAT", AT_MS),
    encode("PEXPIREAT", "k", AT_MS),
    encode("RESTORE", "k", 0, "payload"),
    encode("RESTORE", "k", AT_MS, "payload", "REPLACE", "absttl"),
    encode("DEL", *(f"key:{number}" for number in range(300))),
    LOOKS_LIKE_ONE,
]


def kept(stream: bytes, piece_bytes: int) -> bytes:
    """What is kept of a stream that comes in such pieces."""
    commands = Commands()
    pieces = [stream[at : at + piece_bytes] for at in range(0, len(stream), piece_bytes)]
    result = b"".join([commands.add(piece, at_ms=AT_MS) for piece in pieces])
    assert not commands.is_cut
    return result


@pytest.mark.parametrize("piece_bytes", [1, 2, 7, 64, 1 << 20])
def test_what_was_meant_for_its_own_time_is_left_out(piece_bytes: int) -> None:
    stream = SELECT + MULTI + b"".join(command + LOOKS_LIKE_ONE for command in DROPPED.values()) + EXEC

    assert kept(stream, piece_bytes) == SELECT + MULTI + LOOKS_LIKE_ONE * len(DROPPED) + EXEC
    assert kept(b"".join(DROPPED.values()), piece_bytes) == b""


@pytest.mark.parametrize("piece_bytes", [1, 5, 1 << 20])
def test_a_time_to_live_is_followed_by_its_moment(piece_bytes: int) -> None:
    for command, lifetime_ms in UNTIL.items():
        moment = encode("PEXPIREAT", "k", AT_MS + lifetime_ms)
        assert kept(PLAIN + command + PLAIN, piece_bytes) == PLAIN + command + moment + PLAIN


@pytest.mark.parametrize("piece_bytes", [1, 5, 1 << 20])
def test_everything_else_is_kept_as_it_is(piece_bytes: int) -> None:
    assert kept(b"".join(AS_THEY_ARE), piece_bytes) == b"".join(AS_THEY_ARE)


def test_values_are_not_held_in_memory() -> None:
    commands = Commands()
    command = encode("SET", "k", "x" * (8 << 20), "PX", 5)
    half = len(command) // 2

    assert commands.add(command[:half], at_ms=AT_MS) == command[:half]
    assert commands.is_cut
    assert commands.add(command[half:], at_ms=AT_MS) == command[half:] + encode("PEXPIREAT", "k", AT_MS + 5)
    assert not commands.is_cut


def test_a_dropped_command_of_which_a_part_came_is_no_cut() -> None:
    commands = Commands()

    assert commands.add(PLAIN + DROPPED["question"][:-3], at_ms=AT_MS) == PLAIN
    assert not commands.is_cut


@pytest.mark.parametrize("stream", [b"PING\r\n" * 10, b"*2\r\n$3\r\nSET\r\n" + b":" * 40, b"\x00" * 40])
def test_what_is_no_stream_of_commands_is_refused(stream: bytes) -> None:
    with pytest.raises(ToolFailedError, match="does not replicate as Redis does"):
        Commands().add(stream, at_ms=AT_MS)
