"""`mathison-controller` as a program: its commands, its settings, its signals, its files."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509

from common.credentials import JoinToken, client_uri, fingerprint
from tests.fakes.fake_agent import FakeAgent
from tests.fixtures.controller import ControllerProcess
from tests.fixtures.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


def command(controller: ControllerProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one command of the program to its end."""
    return subprocess.run(
        [sys.executable, "-m", "controller", *arguments],
        env={**os.environ, "PYTHONPATH": ".:protos", "MATHISON_CONTROLLER_CONFIG": str(controller.config)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def status_of(controller: ControllerProcess, token: str, path: str = "/api/deployments") -> int:
    async with (
        aiohttp.ClientSession(controller.rest, headers=controller.bearer(token)) as session,
        session.get(path) as answer,
    ):
        return answer.status


async def test_a_token_is_shown_once_works_at_once_and_is_revoked(controller: ControllerProcess) -> None:
    made = command(controller, "token", "create", "ci", "--scope", "read,export", "--workspace", "shop")
    again = command(controller, "token", "create", "ci", "--scope", "read")
    secret = made.stdout.strip()
    before = await status_of(controller, secret)
    listed = command(controller, "token", "list")
    revoked = command(controller, "token", "revoke", "ci")
    after = await status_of(controller, secret)

    assert (made.returncode, revoked.returncode, before, after) == (0, 0, 200, 401)
    assert again.returncode == 2
    assert "already" in again.stderr
    assert "ci\texport,read\tshop\texpires never" in listed.stdout.splitlines()
    assert secret not in listed.stdout


async def test_a_workspace_without_apps_is_told_and_its_token_made(controller: ControllerProcess) -> None:
    made = command(controller, "token", "create", "early", "--scope", "read", "--workspace", "shop,shpo")

    assert made.returncode == 0
    assert made.stdout.startswith("mathison-api.")
    assert made.stderr == "mathison-controller: no app is in the workspace 'shpo' now.\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("token", "create", "ok", "--scope", "write"),
        ("token", "create", "ok"),
        ("token", "create", "ok", "--scope", "read", "--workspace", ""),
        ("token", "create", "ok", "--scope", "read", "--workspace", "shop,"),
        ("token", "create", "ok", "--scope", "read", "--workspace", "../x"),
        ("token", "create", "ok", "--scope", "read", "--workspace", "shop.db"),
        ("token", "create", "ok", "--scope", "read", "--expires-days", "9999999"),
        ("token", "revoke", "nobody"),
        ("join-token", "shop.unknown"),
        ("join-token", "shop.db", "--valid-minutes", "0"),
        ("issue-client-certificate", "A/b", "--out", "/nonexistent"),
        ("issue-client-certificate", "ca", "--out", "/nonexistent"),
        (),
    ],
    ids=" ".join,
)
async def test_a_wrong_command_exits_with_2_and_says_why(
    controller: ControllerProcess, arguments: tuple[str, ...]
) -> None:
    done = command(controller, *arguments)

    assert done.returncode == 2
    assert done.stderr.strip()
    assert "Traceback" not in done.stderr


async def test_a_misspelt_scope_is_told_with_those_that_there_are(controller: ControllerProcess) -> None:
    done = command(controller, "token", "create", "ok", "--scope", "read,write")

    assert done.stderr == "mathison-controller: 'write' is no scope; there are read, export, import.\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("join-token", "shop.db", "--valid-minutes", "0.02"),
        ("token", "create", "ok", "--scope", "read", "--expires-days", "soon"),
        ("token", "create", "ok", "--scope", "read", "--expires-days", "-1"),
    ],
    ids=" ".join,
)
async def test_a_number_that_cannot_be_used_is_told_with_those_that_can(
    controller: ControllerProcess, arguments: tuple[str, ...]
) -> None:
    done = command(controller, *arguments)

    assert done.returncode == 2
    assert f"it has to be a whole number from 1 to 1000000, not '{arguments[-1]}'" in done.stderr


async def test_a_join_token_carries_the_authoritys_fingerprint(controller: ControllerProcess) -> None:
    done = command(controller, "join-token", "shop.db")

    assert JoinToken.parse(done.stdout).authority_fingerprint == fingerprint(controller.authority.certificate)


async def test_a_client_certificate_is_written_with_its_key_for_the_owner_only(
    controller: ControllerProcess, tmp_path: Path
) -> None:
    done = command(controller, "issue-client-certificate", "grpcurl", "--out", str(tmp_path / "certificates"))

    directory = tmp_path / "certificates"
    assert done.stdout.split() == [str(directory / name) for name in ("ca.crt", "grpcurl.crt", "grpcurl.key")]
    leaf = x509.load_pem_x509_certificate((directory / "grpcurl.crt").read_bytes())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [client_uri("grpcurl")]
    assert stat.S_IMODE((directory / "grpcurl.key").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ("[limits]\nupload_bytes = 0", "limits.upload_bytes"),
        ("[[apps]", "controller.toml"),
    ],
)
async def test_wrong_settings_exit_with_2_and_name_the_key(
    own_controller: ControllerProcess, settings: str, named: str
) -> None:
    own_controller.config.write_text(settings)

    done = command(own_controller, "serve")

    assert done.returncode == 2
    assert named in done.stderr
    assert "Traceback" not in done.stderr


async def test_without_settings_the_program_says_how_to_name_them(own_controller: ControllerProcess) -> None:
    done = command(own_controller, "serve")

    assert done.returncode == 2
    assert "controller.toml" in done.stderr


async def test_a_taken_port_is_an_error_and_not_a_shared_port(
    own_controller: ControllerProcess, controller: ControllerProcess
) -> None:
    taken = {
        "rest": controller.rest.removeprefix("http://"),
        "grpc": controller.grpc,
        "enrolment": controller.enrolment,
    }
    for table, address in taken.items():
        own_controller.write_settings()
        text = own_controller.config.read_text()
        own_controller.config.write_text(
            text.replace(f'[{table}]\nlisten = "127.0.0.1:0"', f'[{table}]\nlisten = "{address}"')
        )

        done = command(own_controller, "serve")

        assert done.returncode == 1, table
        assert f"mathison-controller: {address} cannot be listened on" in done.stderr
        assert f"Correct `{table}.listen` in the settings." in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [("serve",), ("token", "list")], ids=" ".join)
async def test_a_state_directory_that_cannot_be_used_is_named_with_its_setting(
    own_controller: ControllerProcess, arguments: tuple[str, ...]
) -> None:
    own_controller.write_settings()
    own_controller.state.directory.write_text("a file")

    done = command(own_controller, *arguments)

    assert done.returncode == 1
    assert done.stderr.startswith(
        f"mathison-controller: The state directory {own_controller.state.directory} cannot be used: it is no directory."
    )
    assert "`state_directory`" in done.stderr


async def test_a_file_that_cannot_be_written_is_named_without_a_number(
    controller: ControllerProcess, tmp_path: Path
) -> None:
    (tmp_path / "out").write_text("a file")

    done = command(controller, "issue-client-certificate", "grpcurl", "--out", str(tmp_path / "out"))

    assert done.returncode == 1
    assert "out/" in done.stderr
    assert "not a directory." in done.stderr
    assert "Errno" not in done.stderr


async def test_tokens_that_cannot_be_read_are_named(own_controller: ControllerProcess) -> None:
    own_controller.write_settings()
    command(own_controller, "token", "create", "me", "--scope", "read")
    tokens = own_controller.state.directory / "tokens.json"
    tokens.write_text("[")

    done = command(own_controller, "token", "create", "ci", "--scope", "read")

    assert done.returncode == 2
    assert f"mathison-controller: {tokens} is damaged: " in done.stderr
    assert tokens.read_text() == "["


async def test_a_second_controller_on_one_state_directory_is_refused_and_leaves_the_first_alone(
    controller: ControllerProcess, token: str
) -> None:
    second = controller.directory / "second.toml"
    second.write_text(controller.config.read_text())
    before = controller.state.addresses.read_bytes()

    done = command(controller, "serve", "--config", str(second))

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("mathison-controller: Another controller uses the state directory ")
    assert str(controller.state.directory) in done.stderr
    assert done.stderr.count("\n") == 1
    assert controller.state.addresses.read_bytes() == before
    assert await status_of(controller, token) == 200


async def test_sighup_reads_the_apps_again(own_controller: ControllerProcess, own_agent: FakeAgent) -> None:
    address = own_controller.apps.pop("shop.db")
    await own_controller.start()
    token = own_controller.token()
    before = await status_of(own_controller, token, "/api/deployments/shop.db")
    own_controller.apps["shop.db"] = address
    own_controller.write_settings()

    os.kill(own_controller.pid, signal.SIGHUP)

    await until(lambda: "The list of apps was read again" in own_controller.log.read_text())
    after = await status_of(own_controller, token, "/api/deployments/shop.db")
    own_controller.config.write_text("nonsense")
    os.kill(own_controller.pid, signal.SIGHUP)
    await until(lambda: "cannot be read again" in own_controller.log.read_text())
    later = await status_of(own_controller, token, "/api/deployments/shop.db")
    assert (before, after, later) == (404, 200, 200)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_an_idle_controller_stops_at_once(own_controller: ControllerProcess, number: signal.Signals) -> None:
    await own_controller.start()

    exit_status = await asyncio.wait_for(own_controller.stop(number), 5)

    assert exit_status == 0
    assert not own_controller.state.addresses.exists()
    assert "Traceback" not in own_controller.log.read_text()


async def test_the_state_is_for_the_owner_only(controller: ControllerProcess) -> None:
    state = controller.state
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in state.directory.rglob("*")}

    assert stat.S_IMODE(state.directory.stat().st_mode) == 0o700
    assert (modes["ca"], modes["ca.key"], modes["tokens.json"], modes["audit.log"]) == (0o700, 0o600, 0o600, 0o600)


async def test_a_controller_that_was_killed_starts_again_with_the_same_authority_and_tokens(
    own_controller: ControllerProcess,
) -> None:
    await own_controller.start()
    token, authority = own_controller.token(), own_controller.authority.pem
    await own_controller.stop(signal.SIGKILL)

    own_controller.state.addresses.unlink()
    await own_controller.start()

    assert own_controller.authority.pem == authority
    assert await status_of(own_controller, token) == 200


async def test_https_is_served_with_the_certificate_in_the_settings(
    own_controller: ControllerProcess, tmp_path: Path
) -> None:
    import ssl

    identity = own_controller.authority.issue_controller()
    (tmp_path / "crt").write_bytes(identity.certificate)
    (tmp_path / "key").write_bytes(identity.key)
    own_controller.rest_lines = [f'tls_certificate_file = "{tmp_path}/crt"', f'tls_key_file = "{tmp_path}/key"']
    await own_controller.start()
    context = ssl.create_default_context(cadata=own_controller.authority.pem.decode())

    async with (
        aiohttp.ClientSession(own_controller.rest) as session,
        session.get("/healthz", ssl=context, server_hostname="controller.mathison.internal") as answer,
    ):
        assert await answer.json() == {"status": "alive"}

    assert own_controller.rest.startswith("https://")
