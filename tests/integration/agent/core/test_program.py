"""mathison-agent as a program: arguments, exit statuses, one agent for each state directory."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from common.version import VERSION
from mathison.data.v1 import agent_pb2 as messages
from mathison.data.v1 import agent_pb2_grpc
from tests.fixtures.waiting import until
from tests.integration.agent.core.conftest import AgentProcess


def run(agent: AgentProcess, *arguments: str, config: bool = True) -> subprocess.CompletedProcess[str]:
    command = agent.command(*arguments) if config else [agent.command()[0], *arguments]
    return subprocess.run(command, env=agent.environment, capture_output=True, text=True, timeout=30)


def test_help_and_version_need_no_settings(stopped_agent: AgentProcess) -> None:
    assert "--config" in run(stopped_agent, "--help", config=False).stdout
    assert VERSION in run(stopped_agent, "--version", config=False).stdout


def test_settings_can_be_checked_without_serving(stopped_agent: AgentProcess) -> None:
    stopped_agent.write_config()

    result = run(stopped_agent, "--check")

    assert (result.returncode, result.stderr) == (0, "")
    assert "shop.db with recipe fake can be used" in result.stdout


@pytest.mark.parametrize(
    ("old", "new", "named", "check"),
    [
        pytest.param('"fake"', '"nosuch"', "no recipe 'nosuch'; there are fake, ", True, id="unknown recipe, checked"),
        pytest.param('"fake"', '"nosuch"', "no recipe 'nosuch'; there are fake, ", False, id="unknown recipe, served"),
        pytest.param("app_id =", "apps =", "there is no setting `apps`;", True, id="unknown key"),
        pytest.param('"shop.db"', "7", "app_id", False, id="wrong type"),
    ],
)
def test_wrong_settings_end_with_status_2_and_name_what_is_wrong(
    stopped_agent: AgentProcess, old: str, new: str, named: str, check: bool
) -> None:
    stopped_agent.write_config()
    stopped_agent.config.write_text(stopped_agent.config.read_text().replace(old, new))

    result = run(stopped_agent, *(["--check"] if check else []))

    assert result.returncode == 2
    assert named in result.stderr
    assert f"mathison-agent: {stopped_agent.config}: " in result.stderr
    assert "Traceback" not in result.stderr


async def test_a_recipes_relative_paths_are_relative_to_the_settings_file(
    stopped_agent: AgentProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_agent.recipe_settings["directory"] = stopped_agent.app.name
    stopped_agent.give_identity()
    monkeypatch.chdir(tmp_path)

    stopped_agent.start()

    assert stopped_agent.app.parent == stopped_agent.config.parent
    async with stopped_agent.channel() as channel:
        described = await agent_pb2_grpc.DataAgentStub(channel).Describe(messages.DescribeRequest())
    assert described.can_export, described.export_obstacle


def test_no_settings_end_with_status_2(stopped_agent: AgentProcess) -> None:
    result = run(stopped_agent, config=False)

    assert result.returncode == 2
    assert "MATHISON_AGENT_CONFIG" in result.stderr


def test_a_second_agent_on_the_same_state_directory_is_refused(agent: AgentProcess) -> None:
    result = run(agent)

    assert result.returncode == 1
    assert f"Another agent uses the state directory {agent.state}" in result.stderr
    assert result.stderr.count("\n") == 1
    assert agent.address_file.exists()


def test_an_agent_that_was_killed_leaves_its_state_directory_to_the_next(stopped_agent: AgentProcess) -> None:
    stopped_agent.start()
    stopped_agent.kill()

    stopped_agent.start()

    assert stopped_agent.address_file.exists()


def test_a_port_that_is_taken_is_named(agent: AgentProcess) -> None:
    taken = agent.address_file.read_text()
    second = agent.directory / "second.toml"
    text = agent.config.read_text().replace('"127.0.0.1:0"', f'"{taken}"').replace('"state"', '"state2"')
    second.write_text(text)
    (agent.directory / "state2").mkdir()
    (agent.directory / "state2" / "identity").symlink_to(agent.state / "identity")

    result = subprocess.run(
        [agent.command()[0], "--config", str(second)], env=agent.environment, capture_output=True, text=True, timeout=30
    )

    assert result.returncode == 1
    assert f"cannot listen on {taken}" in result.stderr


def test_a_state_directory_that_cannot_be_used_is_named_with_its_setting(stopped_agent: AgentProcess) -> None:
    stopped_agent.settings["state_directory"] = "elsewhere"
    stopped_agent.write_config()
    text = stopped_agent.config.read_text().replace('state_directory = "state"\n', "")
    stopped_agent.config.write_text(text)
    (stopped_agent.directory / "elsewhere").write_text("a file")

    result = run(stopped_agent)

    assert result.returncode == 1
    assert (
        f"The state directory {stopped_agent.directory}/elsewhere cannot be used: it is no directory." in result.stderr
    )
    assert "`state_directory`" in result.stderr


async def test_every_line_of_the_log_is_one_event(agent: AgentProcess) -> None:
    await until(lambda: any(line["action"] == "start" for line in agent.log))

    started = next(line for line in agent.log if line["action"] == "start")

    assert started["address"] == agent.address_file.read_text()
    assert (started["app_id"], started["recipe"]) == ("shop.db", "fake")


def test_what_only_loading_a_library_touched_is_not_resident_while_it_serves(stopped_agent: AgentProcess) -> None:
    stopped_agent.start()

    smaps = Path(f"/proc/{stopped_agent.pid}/smaps").read_text()

    # Its first mapping: the names of its symbols and what is to be relocated, in memory wholly when it was loaded.
    mapping = re.search(r" r--p 00000000 .*/cygrpc\..*\nSize: +(\d+) kB\n(?:.+\n)*?Rss: +(\d+) kB\n", smaps)
    assert mapping
    size_kib, resident_kib = map(int, mapping.groups())
    assert resident_kib < size_kib / 2
