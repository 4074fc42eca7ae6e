"""The audit log: what is written for each way in which an operation can end."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import (
    AppNotFoundError,
    CancelledError,
    InternalError,
    NoSpaceError,
    NotPermittedError,
)
from controller.audit import Audit
from controller.callers import Caller

NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
CALLER = Caller(name="ci", scopes=frozenset(), workspaces=None, remote_address="192.0.2.1")


@pytest.fixture
def audit(tmp_path: Path) -> Iterator[Audit]:
    made = Audit(tmp_path / "audit.log", clock=lambda: NOW)
    yield made
    made.close()


def lines(tmp_path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (tmp_path / "audit.log").read_text().splitlines()]


def test_a_success_has_a_line_at_each_end(audit: Audit, tmp_path: Path) -> None:
    with audit.attempt(CALLER, "export", "shop.db") as attempt:
        attempt.transfer_id = "t-1"
        attempt.start()
        attempt.size_bytes, attempt.sha256 = 5, "ab"

    who = {"action": "export", "caller": "ci", "remote_address": "192.0.2.1", "app_id": "shop.db"}
    assert lines(tmp_path) == [
        {"at": "2026-11-23T12:00:00Z", "result": "started", "transfer_id": "t-1", **who},
        {
            "at": "2026-11-23T12:00:00Z",
            "result": "succeeded",
            "transfer_id": "t-1",
            "size_bytes": 5,
            "sha256": "ab",
            **who,
        },
    ]


@pytest.mark.parametrize(
    ("error", "result", "reason"),
    [
        (NotPermittedError("no"), "refused", "NOT_PERMITTED"),
        (AppNotFoundError("no"), "refused", "APP_NOT_FOUND"),
        (NoSpaceError("no"), "failed", "NO_SPACE"),
        (CancelledError("no"), "cancelled", "CANCELLED"),
        (asyncio.CancelledError(), "cancelled", "CALLER_LEFT"),
        (GeneratorExit(), "cancelled", "CALLER_LEFT"),
        (ZeroDivisionError(), "failed", "INTERNAL"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_every_way_to_end_is_written(
    audit: Audit, tmp_path: Path, error: BaseException, result: str, reason: str
) -> None:
    with pytest.raises(type(error)), audit.attempt(CALLER, "import", "shop.db"):
        raise error

    (line,) = lines(tmp_path)
    assert (line["result"], line["reason"]) == (result, reason)


def test_what_the_controller_breaks_off_by_stopping_was_not_left_by_its_caller(audit: Audit, tmp_path: Path) -> None:
    def be_cancelled(*, is_past_return: bool) -> None:
        with audit.attempt(CALLER, "import", "shop.db") as attempt:
            attempt.is_past_return = is_past_return
            raise asyncio.CancelledError

    audit.is_stopping = True
    for is_past_return in (False, True):
        with pytest.raises(asyncio.CancelledError):
            be_cancelled(is_past_return=is_past_return)

    assert [(line["result"], line["reason"]) for line in lines(tmp_path)] == [
        ("cancelled", "CONTROLLER_STOPPED"),
        ("unknown", "CONTROLLER_STOPPED"),
    ]


def test_an_operation_that_cannot_be_written_down_does_not_begin(audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)

    with pytest.raises(InternalError, match="audit log"), audit.attempt(CALLER, "export", "shop.db") as attempt:
        attempt.start()


def test_a_line_that_the_disk_takes_in_part_is_not_taken_for_written_and_spoils_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start() -> None:
        audit = Audit(tmp_path / "audit.log", clock=lambda: NOW)
        try:
            with audit.attempt(CALLER, "export", "shop.db") as attempt:
                attempt.start()
        finally:
            audit.close()

    write = os.write
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda descriptor, text: write(descriptor, text[:20]))
        with pytest.raises(InternalError, match="audit log"):
            start()
    start()

    torn, last_of_the_first, *whole = (tmp_path / "audit.log").read_text().splitlines()
    assert (len(torn), len(last_of_the_first)) == (20, 19)
    assert [json.loads(line)["result"] for line in whole] == ["started", "succeeded"]


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> dt.datetime:
        return self.now


def test_callers_without_a_token_have_one_line_a_second_with_the_number_of_those_left_out(tmp_path: Path) -> None:
    clock = Clock()
    audit = Audit(tmp_path / "audit.log", clock=clock)

    for moved_seconds in (0, 0.5, 0.4, 0.2, 3, 0, 0, -3600):
        clock.now += dt.timedelta(seconds=moved_seconds)
        audit.turn_away("192.0.2.1", "NOT_AUTHENTICATED")
    audit.turn_away("192.0.2.2", "NOT_AUTHENTICATED")
    audit.close()

    assert lines(tmp_path)[0] == {
        "at": "2026-11-23T12:00:00Z",
        "action": "authenticate",
        "result": "refused",
        "remote_address": "192.0.2.1",
        "reason": "NOT_AUTHENTICATED",
    }
    assert [line.get("left_out", 0) for line in lines(tmp_path)] == [0, 2, 0, 2, 1]


def test_those_left_out_are_counted_until_the_disk_has_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    clock = Clock()
    audit = Audit(tmp_path / "audit.log", clock=clock)
    audit.turn_away("192.0.2.1", "NOT_AUTHENTICATED")
    audit.turn_away("192.0.2.1", "NOT_AUTHENTICATED")
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        clock.now += dt.timedelta(seconds=2)
        audit.turn_away("192.0.2.1", "NOT_AUTHENTICATED")

    clock.now += dt.timedelta(seconds=2)
    audit.turn_away("192.0.2.1", "NOT_AUTHENTICATED")
    audit.close()

    assert [line.get("left_out", 0) for line in lines(tmp_path)] == [0, 2]


def test_a_refused_caller_does_not_choose_how_long_a_line_is(audit: Audit, tmp_path: Path) -> None:
    with pytest.raises(AppNotFoundError), audit.attempt(CALLER, "export", "x" * 4_000_000):
        raise AppNotFoundError("no")

    (line,) = lines(tmp_path)
    assert line["app_id"] == "x" * 128


def test_a_log_that_is_there_is_added_to(tmp_path: Path) -> None:
    for _ in range(2):
        audit = Audit(tmp_path / "audit.log", clock=lambda: NOW)
        with audit.attempt(CALLER, "confirm", "shop.db"):
            pass
        audit.close()

    assert len(lines(tmp_path)) == 2
    assert (tmp_path / "audit.log").stat().st_mode & 0o777 == 0o600
