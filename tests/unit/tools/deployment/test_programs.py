from __future__ import annotations

from pathlib import Path

import pytest

from tools.deployment.programs import DeploymentError, Program, run_command


def test_a_program_that_ends_early_is_explained_by_its_log(tmp_path: Path) -> None:
    program = Program("helper", ["/bin/sh", "-c", "echo the reason is this >&2; exit 3"], directory=tmp_path)
    program.start()

    with pytest.raises(DeploymentError, match=r"The helper ended before it answered(.|\n)*the reason is this"):
        program.wait_until(lambda: False, "answered", seconds=20)


def test_a_program_that_never_becomes_ready_is_explained_by_its_log(tmp_path: Path) -> None:
    program = Program("helper", ["/bin/sh", "-c", "echo still waiting; exec sleep 60"], directory=tmp_path)
    program.start()
    program.wait_until(lambda: "waiting" in program.log_tail(), "said something", seconds=20)

    with pytest.raises(DeploymentError, match=r"The helper runs, but in 0 s it never answered(.|\n)*still waiting"):
        program.wait_until(lambda: False, "answered", seconds=0.2)

    program.kill()
    assert not program.is_running


def test_a_command_that_fails_is_explained_by_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(DeploymentError, match="sh -c ended with status 4: no such luck"):
        run_command(["/bin/sh", "-c", "echo no such luck >&2; exit 4"], home=tmp_path)


def test_a_command_that_does_not_end_is_a_step_that_failed(tmp_path: Path) -> None:
    with pytest.raises(DeploymentError, match="sh -c did not end within 0 s"):
        run_command(["/bin/sh", "-c", "exec sleep 60"], home=tmp_path, timeout_seconds=0.2)


def test_a_command_gets_nothing_of_the_callers_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "secret")

    assert "PGPASSWORD" not in run_command(["/usr/bin/env", "--"], home=tmp_path)
