"""Whether the top level of a function library does no more than to define and to register.

Every load of a snapshot runs it, without a limit of time or memory; nothing ends it. Servers lend it no library of
Lua's (Redis 7.0 and Valkey 9.1 know `redis` and `server` alone then), but strings have methods, of which `find` may
take for ever. So what runs is looked at as text: without loops, calls but for registering and strings that are joined,
it is over after about as many steps as the text is long. Bodies of functions do not run in a load.
A FUNCTION LOAD to see what happens would be no better guard: `find` hung a Redis 7.0 in it, and `redis.log` at the top
level ended a Valkey 9.1.2.

What this does not understand counts as doing more.
"""

from __future__ import annotations

import re

_FIRST_LINE = re.compile(rb"#!lua name=([A-Za-z0-9_]{1,200})[ \t\r]*(?:\n|$)", re.IGNORECASE)
_TOKEN = re.compile(
    rb"""(?P<blank>[ \t\n\r\v\f]+)
    |(?P<comment>--(?!\[=*\[)[^\n\r]*)
    |(?P<long>(?:--)?\[(?P<level>=*)\[)
    |(?P<string>'(?:[^'\\\n\r]|\\.)*'|"(?:[^"\\\n\r]|\\.)*")
    |(?P<number>\.?[0-9][0-9.]*(?:[eE][+-]?)?[A-Za-z0-9_]*)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<sign>\.\.\.|\.\.|[=~<>]=|[-+*/%^\#<>=(){}\[\];:,.])""",
    re.VERBOSE | re.DOTALL,
)
_KEYWORDS = frozenset(
    b"and break do else elseif end false for function if in local nil not or repeat "
    b"return then true until while".split()
)
_SERVERS = frozenset((b"redis", b"server"))
_REGISTER = b"register_function"
_LOOP = "has a loop"
_STRING = b"''"
"""Stands for any string."""


class _UnreadableError(Exception):
    """No Lua as far as this knows."""


def name_of(code: bytes) -> str:
    """As the library's first line says."""
    found = _FIRST_LINE.match(code)
    return found[1].decode() if found else "(without a name)"


def beyond_registering(code: bytes) -> str:
    """What the top level of a library does besides defining and registering, for a text; empty: nothing."""
    first = _FIRST_LINE.match(code)
    if first is None:
        return "does not begin with `#!lua name=` and a name"
    try:
        tokens = _tokens(code, first.end(1))
    except _UnreadableError:
        return "cannot be read as Lua"
    found = _judge([b"", b"", b"", b"", *tokens, b"", b""])
    return f"{found} at its top level" if found else ""


def _tokens(code: bytes, position: int) -> list[bytes]:
    tokens = []
    if b"\0" in code:
        raise _UnreadableError
    while position < len(code):
        found = _TOKEN.match(code, position)
        if found is None:
            raise _UnreadableError
        position = found.end()
        match found.lastgroup:
            case "blank" | "comment":
                pass
            case "string":
                tokens.append(_STRING)
            case "number":
                tokens.append(b"0")
            case "name" | "sign":
                tokens.append(found[0])
            case _:
                position = _after_long(code, position, found["level"])
                if not found[0].startswith(b"--"):
                    tokens.append(_STRING)
    return tokens


def _after_long(code: bytes, position: int, level: bytes) -> int:
    """Where a string or comment in long brackets ends. Builds of Lua 5.1 differ on whether they nest."""
    end = code.find(b"]" + level + b"]", position)
    if end < 0 or (not level and code.find(b"[[", position, end) >= 0):
        raise _UnreadableError
    return end + 2 + len(level)


def _judge(tokens: list[bytes]) -> str:
    """
    Args:
        tokens: with four empty ones before them and two after.
    """
    blocks: list[bool] = []
    depth = 0
    for at in range(4, len(tokens) - 2):
        token, before, after = tokens[at], tokens[at - 1], tokens[at + 1]
        if token in (b"function", b"if", b"do", b"repeat"):
            is_function = token == b"function"
            if is_function and not depth and after in _SERVERS:
                return f"defines a function in `{after.decode()}`"
            if token == b"repeat" and not depth:
                return _LOOP
            blocks.append(is_function)
            depth += is_function
        elif token in (b"end", b"until"):
            if not blocks:
                return "ends a block that did not begin"
            depth -= blocks.pop()
        elif depth:
            continue
        elif token in (b"for", b"while"):
            return _LOOP
        elif token == b":":
            return "calls a method"
        elif token == b"..":
            if before != _STRING or after != _STRING:
                return "joins strings"
        elif token in _SERVERS and before != b".":
            if after != b"." or (tokens[at + 2] == _REGISTER and tokens[at + 3] not in (b"(", b"{", _STRING)):
                return f"uses `{token.decode()}` for something else than registering"
        elif token in (b"(", b"{", _STRING) and _is_callable(before) and not _is_registering(tokens[at - 4 : at]):
            return f"calls `{before.decode()}`" if before[:1].isalpha() or before[:1] == b"_" else "calls a value"
    return ""


def _is_callable(token: bytes) -> bool:
    """Whether what follows it in brackets is what it is called with."""
    if token in (b")", b"]"):
        return True
    return (token[:1].isalpha() or token[:1] == b"_") and token not in _KEYWORDS


def _is_registering(path: list[bytes]) -> bool:
    return path[1] in _SERVERS and path[2] == b"." and path[3] == _REGISTER and path[0] not in (b".", b":")
