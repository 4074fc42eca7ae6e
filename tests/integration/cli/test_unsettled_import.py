"""The command beside a real controller and agent, while the agent can bring an import to neither side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from cli.failures import StoppedError
from cli.importing import import_archive
from cli.session import Session
from cli.settings import Settings
from mathison.data.v1 import agent_pb2 as messages
from mathison.data.v1.agent_pb2_grpc import DataAgentStub
from tests.fixtures.agent_program import APP_ID, AgentProgram
from tests.fixtures.archives import entry, tar_of
from tests.fixtures.controller import ControllerProcess
from tests.fixtures.waiting import until


class Broken:
    """A volume whose app is stopped once, and then neither starts nor stops until it is mended."""

    def __init__(self, directory: Path) -> None:
        self.volume = directory / "volume"
        self.volume.mkdir()
        (self.volume / "data").write_text("old")
        self._mended = directory / "mended"
        self.agent = AgentProgram(directory / "agent", recipe="volume", recipe_settings={"directory": str(self.volume)})
        self.agent.app_commands = {
            "stop": ["sh", "-c", f"test -e {self._mended} || mkdir {directory}/stopped"],
            "start": ["test", "-e", str(self._mended)],
        }

    def mend(self) -> None:
        self._mended.touch()


@pytest.fixture
async def controller(tmp_path: Path) -> AsyncIterator[ControllerProcess]:
    """Not started yet."""
    (tmp_path / "controller").mkdir()
    made = ControllerProcess(tmp_path / "controller")
    yield made
    await made.stop()


@pytest.fixture
def app(controller: ControllerProcess, tmp_path: Path) -> Iterator[Broken]:
    """An app that the controller knows from its start on, and whose agent serves."""
    (tmp_path / "agent").mkdir()
    made = Broken(tmp_path)
    made.agent.authority = controller.authority
    made.agent.give_identity()
    made.agent.start()
    controller.apps[APP_ID] = made.agent.address_file.read_text()
    yield made
    made.agent.close()


async def test_an_import_that_came_to_neither_side_is_told_while_it_is_waited_for_and_ctrl_c_leaves_it_to_its_agent(
    controller: ControllerProcess,
    app: Broken,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("cli.following.UNSETTLED_SECONDS", 0)
    await controller.start()
    archive = tmp_path / "files.tar"
    archive.write_bytes(tar_of(entry("data", b"new")))
    session = Session(
        Settings(url=controller.rest, is_json=True, is_quiet=True), {"MATHISON_TOKEN": controller.token()}
    )
    said = ""

    def has_told() -> bool:
        nonlocal said
        said += capsys.readouterr().err
        return "\n" in said

    importing = asyncio.create_task(
        import_archive(session, APP_ID, str(archive), options={}, is_dry_run=False, is_agreed=True, is_inspected=True)
    )
    await until(has_told)
    assert not importing.done()
    importing.cancel()
    with pytest.raises(StoppedError, match=f"its agent goes on to bring {APP_ID} to one side") as stopped:
        await importing

    assert said.startswith("Warning: Import cli-")
    assert "was interrupted; bringing the app to one side has to wait" in said
    assert f"Until then nobody knows whether {APP_ID} has the data from before or the imported." in said
    assert f"`mathison transfers {APP_ID}` shows it as cli-" in stopped.value.next_step
    app.mend()
    app.agent.kill()
    app.agent.start()
    async with app.agent.channel() as channel:
        kept = (await DataAgentStub(channel).Describe(messages.DescribeRequest())).kept
    assert kept.transfer_id in stopped.value.next_step
    assert (app.volume / "data").read_text() == "new"
