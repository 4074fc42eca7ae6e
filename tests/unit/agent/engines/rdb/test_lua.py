"""What the top level of a function library does, from its text alone."""

from __future__ import annotations

import time

import pytest

from agent.engines.rdb.lua import beyond_registering, name_of

PLAIN = {
    "two ways of registering": (
        "local function f(keys) for i = 1, 2 do keys:x() end return 1 end\n"
        "redis.register_function('f', f)\n"
        "redis.register_function{function_name='g', callback=function() return f'x' .. f{} end, flags={'no-writes'}}"
    ),
    "constants": "local A, B = {1, 'x' .. [[y]], z = {}}, 0x1F + 2e-3 - #'abc'",
    "a condition": "if redis.REDIS_VERSION_NUM > 0x070000 then server.register_function('f', function() end) end",
    "blocks in a function": (
        "local function f() if a then repeat b() until c elseif d then while e do g() end else do h() end end end"
    ),
    "comments": "-- while true do end\n--[==[ f() ]] ]==] local a = [=[ b() ]=] --[x f()",
    "calls in strings": r"""local a = 'f() \' g()' local b = "h() \" i()\
j()" """,
}
BEYOND = {
    "a loop": ("while true do end", "has a loop"),
    "a loop over numbers": ("for i = 1, 1e9 do end", "has a loop"),
    "a loop that repeats": ("repeat until false", "has a loop"),
    "a loop after a comment that a carriage return ends": ("-- x\rwhile true do end", "has a loop"),
    "a loop in a block": ("do if true then while true do end end end", "has a loop"),
    "a function that is called": ("local function f() while true do end end f()", "calls `f`"),
    "a call with a string": ("f'x'", "calls `f`"),
    "a call with a table": ("f{}", "calls `f`"),
    "a call on the next line": ("local a = f\n(1)", "calls `f`"),
    "a call of a function without a name": ("(function() while true do end end)()", "calls a value"),
    "a call of what is in a table": ("t[1]()", "calls a value"),
    "a call in what is registered": ("redis.register_function('f', g())", "calls `g`"),
    "a call of another's register_function": ("local x = y.redis.register_function(1)", "calls `register_function`"),
    "another call of the server": ("redis.log(redis.LOG_WARNING, 'x')", "calls `log`"),
    "a method of a string": ("local a = ('a'):rep(9)", "calls a method"),
    "strings that double": ("local s = 'a' s = s .. s", "joins strings"),
    "a server of its own": ("local redis = {register_function = f}", "uses `redis`"),
    "a server of its own, among others": ("local a, server = 1, {}", "uses `server`"),
    "a function of the server's name": ("local function redis() end", "defines a function in `redis`"),
    "a function in the server": ("function redis.register_function() end", "defines a function in `redis`"),
    "the server, handed on": ("local a = {redis}", "uses `redis`"),
    "registering, handed on": ("local a = redis.register_function", "uses `redis`"),
    "an end too many": ("end while true do end", "ends a block"),
}
UNREADABLE = {
    "a string that does not end": "local a = 'x\n'",
    "a long string that does not end": "local a = [==[ ]]",
    "a long string that may nest": "local a = [[ [[ ]] f() ]]",
    "a byte that no text has": "local a = 1 \0 f()",
    "a letter of another alphabet": "é()",
}


@pytest.mark.parametrize("code", PLAIN.values(), ids=PLAIN)
def test_a_library_that_defines_and_registers_does_no_more(code: str) -> None:
    assert beyond_registering(b"#!lua name=x\n" + code.encode()) == ""


@pytest.mark.parametrize(("code", "said"), BEYOND.values(), ids=BEYOND)
def test_what_a_library_does_besides_is_said(code: str, said: str) -> None:
    found = beyond_registering(b"#!lua name=x\n" + code.encode())

    assert found.startswith(said)
    assert found.endswith("at its top level")


@pytest.mark.parametrize("code", UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_for_certain_counts_as_doing_more(code: str) -> None:
    assert beyond_registering(b"#!lua name=x\n" + code.encode()) == "cannot be read as Lua"


@pytest.mark.parametrize("code", [b"", b"return 1", b"#!js name=x\n", b'#!"lua" name=x\n', b"#!lua name=x engine=y\n"])
def test_a_first_line_that_is_not_the_usual_one_counts_as_doing_more(code: bytes) -> None:
    assert "does not begin" in beyond_registering(code)


def test_the_name_is_that_of_the_first_line() -> None:
    assert name_of(b"#!LUA name=shop_1\r\nname=x") == "shop_1"


@pytest.mark.parametrize("piece", [b"[[", b"--[[", b"[=", b"'\\", b"((((", b"a.", b"-"])
def test_a_text_made_to_take_long_is_read_in_a_time_like_its_length(piece: bytes) -> None:
    begun_at = time.process_time()

    beyond_registering(b"#!lua name=x\n" + piece * (1 << 16))

    assert time.process_time() - begun_at < 5
