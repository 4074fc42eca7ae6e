"""Function libraries of a file: proven before the swap, and no client ever meets one that is not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis import Redis

from agent.engines.redis import libraries
from agent.engines.redis.connection import Connection, Login, Reply, connect
from agent.engines.redis.libraries import RIGHTS
from common.errors import AppUnavailableError, ArchiveError, ArchiveIncompatibleError, ArchiveRefusedError
from tests.fixtures.rdb_files import function, rdb, text_key
from tests.fixtures.redis_data import LIBRARY
from tests.fixtures.redis_servers import StartRedis, client_of
from tests.integration.agent.recipes.redis_apps import RedisApp
from tests.integration.agent.recipes.test_redis_setups import RIGHTS as RIGHTS_WITHOUT
from tests.integration.agent.recipes.test_redis_setups import app_of_user
from tools.servers import RedisServer

_F = "redis.register_function('f', function() return 1 end)"
_G = "redis.register_function('g', function() return 2 end)"
_BIG = "redis.register_function('big', function() return 3 end)"
REFUSED, INCOMPATIBLE = ArchiveRefusedError, ArchiveIncompatibleError
UNSOUND: dict[str, tuple[list[str], type[ArchiveError], str]] = {
    "never ends": (["#!lua name=x\nwhile true do end"], REFUSED, "'x' of the file has a loop at its top level"),
    "does not compile": (["#!lua name=x\nlocal a = = 1"], INCOMPATIBLE, "take the function library 'x'.* compiling"),
    "has no functions": (["#!lua name=x\n"], INCOMPATIBLE, "library 'x' of the file: .*No functions registered"),
    "is for another engine": (["#!js name=x\n"], REFUSED, "does not begin with `#!lua name=`"),
    "has a name that is taken": (
        [f"#!lua name=x\n{_F}", f"#!lua name=x\n{_G}"],
        INCOMPATIBLE,
        "library 'x' of the file: .*already exists",
    ),
    "has a function that is taken": (
        [f"#!lua name=x\n{_F}", f"#!lua name=y\n{_F}"],
        INCOMPATIBLE,
        "library 'y' of the file: .*Function f already exists",
    ),
}


def libraries_of(client: Redis) -> dict[bytes, bytes]:
    """Their code, by name."""
    told = [dict(zip(one[::2], one[1::2], strict=True)) for one in client.function_list(withcode=True)]
    return {one[b"library_name"]: one[b"library_code"] for one in told}


@pytest.fixture(params=["redis-7.0", pytest.param("valkey-9.1", marks=pytest.mark.variant)])
def server(request: pytest.FixtureRequest, redis_servers: Callable[[str], RedisServer]) -> RedisServer:
    """A server that has one library and one key."""
    server = redis_servers(request.param)
    with client_of(server) as client:
        client.flushall()
        client.function_flush()
        client.function_load(LIBRARY)
        client.set("kept", "1")
    return server


@pytest.mark.parametrize(("codes", "error", "said"), UNSOUND.values(), ids=UNSOUND)
async def test_a_library_that_would_harm_the_load_is_refused_with_its_name_and_the_servers_reason(
    codes: list[str], error: type[ArchiveError], said: str, server: RedisServer, tmp_path: Path
) -> None:
    app = RedisApp(server, tmp_path / "work")

    with pytest.raises(error, match=said) as refused:
        await app.stage(rdb(*(function(code) for code in codes), text_key("a")))

    assert "FUNCTION DELETE" in refused.value.next_step
    with client_of(server) as client:
        assert libraries_of(client) == {b"shop": LIBRARY.encode()}
        assert client.fcall("answer", 0) == 42
        assert client.keys() == [b"kept"]


async def test_a_library_takes_the_place_of_one_with_the_same_functions_and_the_trial_leaves_no_trace(
    server: RedisServer, tmp_path: Path
) -> None:
    code = LIBRARY.replace("shop", "new").replace("42", "43")
    app = RedisApp(server, tmp_path / "work")

    record, _ = await app.stage(rdb(function(code), function(f"#!lua name=x\n{_F}"), text_key("a")))
    with client_of(server) as client:
        assert libraries_of(client) == {b"shop": LIBRARY.encode()}
    await app.recipe.restore(record, app.progress)

    with client_of(server) as client:
        assert client.fcall("answer", 0) == 43
        assert client.fcall("f", 0) == 1


async def test_a_library_that_does_more_when_it_is_loaded_is_taken_where_the_server_has_loaded_it_before(
    server: RedisServer, tmp_path: Path
) -> None:
    code = f"#!lua name=x\nlocal n = 0 for i = 1, 10 do n = n + i end {_F}"
    app, file = RedisApp(server, tmp_path / "work"), rdb(function(code), function(f"#!lua name=y\n{_G}"))
    with pytest.raises(ArchiveRefusedError, match="has a loop"):
        await app.stage(file)

    with client_of(server) as client:
        client.function_load(code)
    await app.import_file(file)

    with client_of(server) as client:
        assert libraries_of(client).keys() == {b"x", b"y"}
    [warning] = (await app.export()).warnings
    assert warning.startswith(
        "As it is, this program will not import this file: the function library 'x' has a loop at its top level. "
    )
    with client_of(server) as client:
        client.function_load(f"#!lua name=big\n--{'x' * (1 << 20)}\n{_BIG}")
    told = (await app.export()).warnings
    assert any("its function libraries have more than 1 MiB of code. Keep less there" in text for text in told)


async def test_a_library_that_a_client_loads_in_the_middle_of_a_trial_is_there_after_it(
    server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynccontextmanager
    async def interrupted(login: Login, *, stays_awake: bool) -> AsyncIterator[Connection]:
        async with connect(login, stays_awake=stays_awake) as connection:
            call = connection.call

            async def call_and_load(*words: bytes | str | int) -> Reply:
                answer = await call(*words)
                if words == ("FUNCTION", "DUMP"):
                    with client_of(server) as client:
                        client.function_load(f"#!lua name=meanwhile\n{_G}")
                return answer

            monkeypatch.setattr(connection, "call", call_and_load)
            yield connection

    monkeypatch.setattr(libraries, "connect", interrupted)

    await RedisApp(server, tmp_path / "work").stage(rdb(function(f"#!lua name=x\n{_F}")))

    with client_of(server) as client:
        assert libraries_of(client).keys() == {b"shop", b"meanwhile"}


async def test_libraries_need_rights_only_where_the_server_does_not_have_them_already(
    start_redis: StartRedis, tmp_path: Path
) -> None:
    server = start_redis("redis-7.0")
    with client_of(server) as client:
        client.function_load(LIBRARY)
    file, other = rdb(function(LIBRARY), text_key("a")), rdb(function(f"#!lua name=x\n{_F}"))

    with pytest.raises(AppUnavailableError, match=r"has function libraries.*user keeper.* may not") as refused:
        await app_of_user(server, tmp_path, *RIGHTS_WITHOUT).stage(other)
    await app_of_user(server, tmp_path, *RIGHTS_WITHOUT, "+function|list").stage(file)
    await app_of_user(server, tmp_path, *RIGHTS_WITHOUT, *RIGHTS.split()).stage(other)

    assert refused.value.next_step.endswith(f"ACL SETUSER keeper {RIGHTS}")
    with client_of(server) as client:
        assert libraries_of(client) == {b"shop": LIBRARY.encode()}


@pytest.mark.parametrize("lacking", RIGHTS.split())
async def test_a_trial_that_lacks_one_right_changes_nothing(
    lacking: str, redis_servers: Callable[[str], RedisServer], tmp_path: Path
) -> None:
    server = redis_servers("redis-7.0")
    with client_of(server) as client:
        client.function_flush()
        client.function_load(LIBRARY)
    app = app_of_user(server, tmp_path, *RIGHTS_WITHOUT, *(right for right in RIGHTS.split() if right != lacking))
    file = rdb(function(f"#!lua name=x\n{_F}"))

    if lacking == "+function|list":
        await app.stage(file)
    else:
        with pytest.raises(AppUnavailableError, match="may not"):
            await app.stage(file)

    with client_of(server) as client:
        client.execute_command("ACL", "DELUSER", "keeper")
        assert libraries_of(client) == {b"shop": LIBRARY.encode()}
