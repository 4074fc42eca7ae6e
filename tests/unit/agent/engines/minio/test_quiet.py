"""What a frozen server says of what is on its way."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent.engines.minio.server import quiet
from common.errors import AppUnavailableError, ServiceError
from tests.fakes.fake_minio import FakeMinio

_CMD = "github.com/minio/minio/cmd."


def _stack(*functions: str, count: int = 1) -> str:
    """As Go writes it."""
    lines = [f"#\t0x20b6{number:04x}\t{name}+0x5b2\t/src/{number}.go:71" for number, name in enumerate(functions)]
    return "\n".join([f"{count} @ 0x48ec0e 0x44fbf7", *lines]) + "\n"


PUT = (
    f"{_CMD}erasureObjects.PutObject",
    f"{_CMD}(*erasureServerPools).PutObject",
    f"{_CMD}objectAPIHandlers.PutObject",
)
WRITING = {
    "an object is put": _stack("internal/sync.(*Mutex).Lock", f"{_CMD}erasureObjects.putObject", *PUT),
    "its xl.meta is put in its place": _stack("syscall.Rename", f"{_CMD}(*xlStorage).RenameData", "main.func1"),
    "one is deleted": _stack(f"{_CMD}erasureObjects.DeleteObject", count=12),
    "tags are put": _stack(f"{_CMD}erasureObjects.updateObjectMetaWithOpts.func1"),
    "one is healed": _stack(f"{_CMD}(*erasureObjects).healObject"),
}
RESTING = {
    "an upload waits for its client": _stack(
        "net.(*conn).Read", f"{_CMD}(*Erasure).Encode", f"{_CMD}erasureObjects.putObject"
    ),
    "one waits for its turn": _stack(f"{_CMD}(*localLockInstance).GetLock", f"{_CMD}erasureObjects.DeleteObject"),
    "one is read": _stack(f"{_CMD}(*xlStorage).readMetadata", f"{_CMD}erasureObjects.GetObjectNInfo"),
    "a part is uploaded": _stack(f"{_CMD}(*xlStorage).CreateFile", f"{_CMD}erasureObjects.PutObjectPart"),
    "calls are held": _stack(f"{_CMD}s3APIMiddleware.func1.maxClients.1", count=400),
}


@pytest.mark.parametrize("doing", WRITING)
def test_what_changes_an_object_is_seen_among_all_that_a_server_does(doing: str) -> None:
    stacks = "goroutine profile: total 8\n" + "\n".join([*RESTING.values(), WRITING[doing], *RESTING.values()])

    assert len(quiet.writing_in(stacks)) == 1
    assert quiet.writing_in(stacks.replace(WRITING[doing], "")) == []


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeMinio:
    monkeypatch.setattr(quiet, "_POLL_SECONDS", 0)
    return FakeMinio(tmp_path)


async def test_a_write_is_waited_for(server: FakeMinio) -> None:
    stacks = [WRITING["an object is put"], WRITING["one is deleted"], RESTING["calls are held"]]
    server.stacks = lambda: stacks.pop(0)

    assert await quiet.until_nothing_is_written(server)  # type: ignore[arg-type]  # of the same calls
    assert stacks == []


@pytest.mark.parametrize(
    ("answer", "is_taken"),
    [(None, False), (AppUnavailableError("gone"), False), (KeyError("another file"), True)],
    ids=["always writes", "does not answer", "does not tell"],
)
async def test_a_server_that_never_rests_is_told_from_one_that_does_not_tell(
    answer: Exception | None, is_taken: bool, server: FakeMinio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quiet, "_WRITES_SECONDS", 0)

    def stacks() -> str:
        if answer is not None:
            raise answer
        return WRITING["one is healed"]

    server.stacks = stacks

    assert await quiet.until_nothing_is_written(server) is is_taken  # type: ignore[arg-type]  # of the same calls


@pytest.mark.parametrize("failure", [None, AppUnavailableError("gone")], ids=["does not tell", "does not answer"])
async def test_calls_that_a_server_does_not_count_are_not_waited_for(
    failure: ServiceError | None, server: FakeMinio, monkeypatch: pytest.MonkeyPatch
) -> None:
    if failure is not None:

        async def failing(*_: object, **__: object) -> None:
            raise failure

        monkeypatch.setattr(server, "call", failing)

    async with asyncio.timeout(quiet._CALLS_SECONDS / 2):
        await quiet.until_no_calls(server)  # type: ignore[arg-type]  # of the same calls
