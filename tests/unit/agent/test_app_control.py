from __future__ import annotations

from pathlib import Path

import pytest

from agent.app_control import make_app_control
from agent.settings import AppSettings
from common.errors import AppBusyError, AppMustStopError, ToolFailedError


def shell(line: str) -> tuple[str, ...]:
    return ("sh", "-c", line)


async def test_stop_and_start_run_their_commands_to_the_end(tmp_path: Path) -> None:
    control = make_app_control(
        AppSettings(stop=shell(f"echo stop >> {tmp_path}/log"), start=shell(f"echo start >> {tmp_path}/log"))
    )

    await control.stop()
    await control.start()

    assert control.is_possible
    assert (tmp_path / "log").read_text() == "stop\nstart\n"


async def test_an_app_that_cannot_be_stopped_is_busy_and_the_reason_is_told() -> None:
    control = make_app_control(AppSettings(stop=shell("echo it is stuck >&2; exit 3"), start=shell("true")))

    with pytest.raises(AppBusyError, match=r"status 3: it is stuck"):
        await control.stop()


async def test_an_app_that_cannot_be_started_is_told_with_its_reason() -> None:
    control = make_app_control(AppSettings(stop=shell("true"), start=("/no/such/program",)))

    with pytest.raises(ToolFailedError, match="could not be started"):
        await control.start()


async def test_a_command_that_does_not_return_is_ended() -> None:
    control = make_app_control(AppSettings(stop=shell("sleep 60"), start=shell("true"), timeout_seconds=0.2))

    with pytest.raises(AppBusyError, match="did not return"):
        await control.stop()


async def test_without_commands_the_app_must_be_stopped_by_others() -> None:
    control = make_app_control(None)

    assert not control.is_possible
    with pytest.raises(AppMustStopError, match="no way"):
        await control.stop()
