from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from tools.demo.__main__ import DemoError, main, state_folder
from tools.deployment import DeploymentError


def test_what_an_earlier_demo_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "old").touch()
    (tmp_path / "demo.json").touch()

    with state_folder(tmp_path, 1) as folder:
        assert not (folder / "run").exists()
        assert not (folder / "demo.json").exists()


def test_a_second_demo_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        status = main(["--once", "--directory", str(tmp_path)])

    assert status == 1
    assert "Another demo runs here" in capsys.readouterr().out


def test_too_little_room_is_said_before_anything_is_started(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="smaller --size-mb"), state_folder(tmp_path, 10**9):
        pass


@pytest.mark.parametrize(("failure", "is_kept"), [(DeploymentError("x"), True), (KeyboardInterrupt(), False)])
def test_data_and_logs_stay_only_after_a_step_failed(tmp_path: Path, failure: BaseException, *, is_kept: bool) -> None:
    def fail() -> None:
        with state_folder(tmp_path, 1) as folder:
            (folder / "run").mkdir()
            raise failure

    with pytest.raises(type(failure)):
        fail()

    assert (tmp_path / "run").exists() is is_kept
