"""What all commands have in common: exit codes, JSON, tokens, addresses; and the small ones themselves."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ipaddress
import os
import pty
import signal
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cli.client import Connection, ConnectionLostError, Controller
from cli.exit_codes import EXIT_CODE_MEANINGS, ExitCode
from cli.failures import EXIT_CODES_BY_REASON
from cli.models import AppList
from common.errors import ERRORS_BY_REASON
from common.version import VERSION
from tests.fakes.fake_controller import TOKEN, FakeController, app, fail, running
from tests.fixtures.variants import variants
from tests.unit.cli.archives import sealed_sql
from tests.unit.cli.conftest import ROOT, Mathison, until


def test_every_reason_on_the_wire_has_an_exit_code() -> None:
    assert set(EXIT_CODES_BY_REASON) == set(ERRORS_BY_REASON)


def test_every_exit_code_is_explained() -> None:
    assert set(EXIT_CODE_MEANINGS) == set(ExitCode)


def test_the_documentation_lists_the_same_exit_codes() -> None:
    documented = (ROOT / "docs" / "commands.md").read_text()

    for code, meaning in EXIT_CODE_MEANINGS.items():
        assert f"| {code.value} | {meaning} |" in documented


@pytest.mark.parametrize(
    ("arguments", "route", "refusal", "exit_code"),
    [
        pytest.param(["apps"], "apps", (401, "NOT_AUTHENTICATED"), 4, id="unknown token"),
        pytest.param(["export", "shop.db"], "export", (403, "NOT_PERMITTED"), 4, id="token without the scope"),
        pytest.param(["export", "shop.none"], "", None, 5, id="unknown app"),
        pytest.param(["undo", "shop.db", "--yes"], "undo", (409, "NOTHING_TO_UNDO"), 5, id="nothing to undo"),
        pytest.param(["cancel", "shop.db/x"], "", None, 5, id="unknown transfer"),
        pytest.param(["import", "shop.db", "a.sql", "--yes"], "import", (422, "ARCHIVE_REFUSED"), 6, id="refused"),
        pytest.param(["import", "shop.db", "a.sql", "--yes"], "import", (413, "LIMIT_EXCEEDED"), 6, id="too large"),
        pytest.param(["import", "shop.db", "a.sql", "--yes"], "import", (409, "TRANSFER_IN_PROGRESS"), 7, id="busy"),
        pytest.param(["import", "shop.db", "a.sql", "--yes"], "import", (507, "NO_SPACE"), 7, id="no room"),
        pytest.param(["export", "shop.db"], "export", (503, "AGENT_UNAVAILABLE"), 7, id="no agent"),
        pytest.param(["import", "shop.db", "a.sql", "--yes"], "import", (400, "DIGEST_MISMATCH"), 8, id="changed"),
        pytest.param(["export", "shop.db"], "export", (409, "SOURCE_UNREADABLE"), 8, id="unreadable source"),
        pytest.param(["export", "shop.db", "--format", "x"], "export", (400, "FORMAT_NOT_SUPPORTED"), 2, id="format"),
        pytest.param(["apps"], "apps", (500, "INTERNAL"), 1, id="fault of the controller"),
        pytest.param(["apps"], "apps", (500, "FROM_THE_FUTURE"), 1, id="reason of a newer controller"),
        pytest.param(["inspect", "missing"], "", None, 9, id="missing file"),
        pytest.param(["apps", "--url", "http://127.0.0.1:1"], "", None, 3, id="nobody listens"),
        pytest.param(["apps", "--url", "not an address"], "", None, 2, id="no address"),
        pytest.param(["apps", "--url", "http://127.0.0.1:1?a=b"], "", None, 2, id="address with a query"),
        pytest.param(["apps", "--token-file", "missing"], "", None, 2, id="no token file"),
        pytest.param(["apps", "--ca-file", "missing"], "", None, 2, id="no CA file"),
    ],
)
async def test_failures_are_told_apart_and_explained(
    mathison: Mathison,
    controller: FakeController,
    tmp_path: Path,
    arguments: list[str],
    route: str,
    refusal: tuple[int, str] | None,
    exit_code: int,
) -> None:
    (tmp_path / "a.sql").write_bytes(sealed_sql())
    if refusal is not None:
        controller.refusals[route] = (*refusal, "What the controller says.")

    ended = await mathison(*arguments, "--json")

    error = ended.document["error"]
    assert (ended.exit_code, error["exit_code"]) == (exit_code, exit_code)
    assert set(error) == {"reason", "message", "next_step", "exit_code"}
    assert ended.stderr.startswith(f"Error: {error['message']}")
    assert "Traceback" not in ended.stderr
    if refusal is not None:
        assert "What the controller says." in error["message"]


@pytest.mark.parametrize("scheme", ["http", "htp"])
async def test_a_password_in_the_address_is_refused_and_not_shown(mathison: Mathison, scheme: str) -> None:
    ended = await mathison("apps", "--url", f"{scheme}://me:hunter2@127.0.0.1:1")

    assert ended.exit_code == 2
    assert "no user and no password" in ended.stderr
    assert "hunter2" not in ended.stderr


async def test_an_answer_that_stops_in_the_middle_is_a_broken_connection() -> None:
    async def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{")
        await reader.read()
        writer.close()
        await writer.wait_closed()
        ended.set()

    ended = asyncio.Event()
    server = await asyncio.start_server(begin, "127.0.0.1", 0)
    url = "http://{}:{}".format(*server.sockets[0].getsockname())
    async with server, Controller(Connection(url)) as client:
        with pytest.raises(ConnectionLostError):
            await client._ask("GET", "/api/deployments", AppList, answer_seconds=0.2)
        await ended.wait()


async def test_names_that_are_no_utf_8_are_no_fault(
    mathison: Mathison, controller: FakeController, tmp_path: Path
) -> None:
    name = os.fsdecode(b"caf\xe9.sql")
    (tmp_path / name).write_bytes(sealed_sql())

    imported = await mathison("import", "shop.db", name, "--yes", "--json")
    unknown = await mathison("export", os.fsdecode(b"shop.caf\xe9"), "--json")
    option = await mathison("export", "shop.db", "--option", os.fsdecode(b"a=\xe9"))

    assert (imported.exit_code, imported.document["file"]) == (0, name)
    assert (unknown.exit_code, option.exit_code) == (5, 2)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["export"], id="no app"),
        pytest.param(["cancel", "shop.db"], id="transfer without its app"),
        pytest.param(["export", "shop.db", "--option", "x"], id="option without a value"),
        pytest.param(["export", "shop.db", "--option", "x=1", "--option", "x=2"], id="option given twice"),
        pytest.param(["frobnicate"], id="no such command"),
        pytest.param(["export", "shop.db", "-o", "-", "--json"], id="two things on standard output"),
        pytest.param(["undo", "shop.db"], id="undo without yes"),
        pytest.param(["confirm", "shop.db"], id="confirm without yes"),
    ],
)
async def test_wrong_usage_is_exit_code_2_and_asks_nothing(
    mathison: Mathison, controller: FakeController, arguments: list[str]
) -> None:
    ended = await mathison(*arguments)

    assert ended.exit_code == 2
    assert "Error: " in ended.stderr
    assert controller.requests == []


async def test_apps_are_listed_with_what_can_be_done(mathison: Mathison, controller: FakeController) -> None:
    kept = running("cli-1", "import") | {"result": "succeeded", "kept_until": "2026-11-30T17:00:00Z"}
    controller.apps = [
        app("shop.db", kept=kept),
        app("shop.files", can_import=False, import_obstacle="The volume is read-only."),
        app(
            "shop.lost",
            can_import=False,
            import_obstacle="It is damaged.",
            can_export=False,
            export_obstacle="It is damaged.",
        ),
        app("shop.gone") | {"is_available": False, "description": None, "obstacle": "The agent does not answer."},
    ]

    ended = await mathison("apps")

    lines = ended.text.splitlines()
    assert ended.exit_code == 0
    assert "143.1 MiB" in lines[1]
    assert "2026-11-30 17:00" in lines[1]
    assert lines[1].endswith("ready")
    assert lines[2].endswith("cannot import: The volume is read-only.")
    assert lines[3].endswith("cannot export or import: It is damaged.")
    assert lines[4].endswith("unavailable: The agent does not answer.")


async def test_apps_as_json_have_their_descriptions(mathison: Mathison, controller: FakeController) -> None:
    document = (await mathison("apps", "--json")).document

    assert [found["id"] for found in document["apps"]] == ["shop.db", "shop.files"]
    assert document["apps"][0]["description"]["can_export"] is True


async def test_a_fingerprint_is_told_with_its_parts(mathison: Mathison, controller: FakeController) -> None:
    told = await mathison("fingerprint", "shop.db")
    document = (await mathison("fingerprint", "shop.db", "--json")).document

    assert told.exit_code == 0
    assert told.text.splitlines()[0] == "ab" * 32
    assert "table public.users" in told.text
    assert document["fingerprint"]["parts"] == {"table public.users": "2 rows, 1f"}


async def test_undo_confirm_transfers_and_cancel_do_what_they_say(
    mathison: Mathison, controller: FakeController
) -> None:
    controller.states["t-1"] = running("t-1", "export")

    listed = await mathison("transfers", "shop.db")
    cancelled = await mathison("cancel", "shop.db/t-1")
    undone = await mathison("undo", "shop.db", "--yes", "--json")
    confirmed = await mathison("confirm", "shop.db", "-y", "--json")

    assert [ended.exit_code for ended in (listed, cancelled, undone, confirmed)] == [0, 0, 0, 0]
    assert "t-1" in listed.text
    assert controller.cancelled == ["t-1"]
    assert undone.document["undone"] is True
    assert confirmed.document == {"confirmed": True}


async def test_an_import_that_stays_staged_is_not_called_running(
    mathison: Mathison, controller: FakeController
) -> None:
    controller.states["t-1"] = running("t-1", "import") | {"progress": {"phase": "staged"}}

    ended = await mathison("transfers", "shop.db")

    assert "nothing was changed" in " ".join(ended.text.split())
    assert "running" not in ended.text


async def test_a_transfer_that_had_failed_is_not_said_to_be_cancelled(
    mathison: Mathison, controller: FakeController
) -> None:
    state = controller.states["t-1"] = running("t-1", "import")
    fail(state, "ARCHIVE_TRUNCATED", "The file is cut off. Nothing was changed.")

    ended = await mathison("cancel", "shop.db/t-1")

    assert ended.text == "t-1 had failed already: The file is cut off. Nothing was changed.\n"


async def test_a_transfer_of_another_app_is_not_cancelled(mathison: Mathison, controller: FakeController) -> None:
    controller.states["t-1"] = running("t-1", "export") | {"app_id": "shop.files"}

    ended = await mathison("cancel", "shop.db/t-1")

    assert ended.exit_code == 5
    assert controller.cancelled == []


async def test_the_token_comes_from_a_file_and_an_open_file_is_warned_about(
    mathison: Mathison, controller: FakeController, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    file.chmod(0o600)

    closed = await mathison("apps", "--token-file", "token", MATHISON_TOKEN="")
    file.chmod(0o644)
    opened = await mathison("apps", MATHISON_TOKEN="", MATHISON_TOKEN_FILE=str(file))

    assert (closed.exit_code, closed.stderr) == (0, "")
    assert opened.exit_code == 0
    assert "Everybody on this machine can read the token file" in opened.stderr
    assert TOKEN not in opened.stderr + opened.text


async def test_without_a_token_people_are_told_how_to_give_one(mathison: Mathison, controller: FakeController) -> None:
    ended = await mathison("apps", MATHISON_TOKEN="")

    assert ended.exit_code == 4
    assert "--token-file" in ended.stderr


async def test_options_may_stand_before_the_command_and_after_it(
    mathison: Mathison, controller: FakeController
) -> None:
    before = await mathison("--json", "--url", controller.url, "apps", MATHISON_URL="http://127.0.0.1:1")
    after = await mathison("apps", "--json", "--url", controller.url, MATHISON_URL="http://127.0.0.1:1")

    assert before.document == after.document


async def test_quiet_leaves_nothing_but_errors(mathison: Mathison, controller: FakeController) -> None:
    quiet = await mathison("export", "shop.db", "--quiet")
    failing = await mathison("export", "shop.none", "--quiet")

    assert (quiet.exit_code, quiet.stdout, quiet.stderr) == (0, b"", "")
    assert failing.stderr.startswith("Error: ")


async def test_progress_without_a_terminal_is_lines_on_standard_error(
    mathison: Mathison, controller: FakeController
) -> None:
    ended = await mathison("export", "shop.db", "--progress", "--json")

    assert ended.document["size_bytes"] == len(controller.archive)
    assert "downloading" in ended.stderr
    assert "\x1b" not in ended.stderr


async def test_something_else_that_answers_is_not_taken_for_a_controller(
    mathison: Mathison, controller: FakeController
) -> None:
    ended = await mathison("apps", "--url", f"{controller.url}/elsewhere")

    assert ended.exit_code == 3
    assert "not as a controller of Mathison Data" in ended.stderr


async def test_https_needs_a_certificate_that_is_trusted(
    start: Callable[..., Any], mathison: Mathison, tmp_path: Path
) -> None:
    certificate = tmp_path / "ca.pem"
    async with FakeController().serve(self_signed(certificate)) as secure:
        trusted = await mathison("apps", "--url", secure.url, "--ca-file", "ca.pem")
        untrusted = await mathison("apps", "--url", secure.url)

    assert (trusted.exit_code, untrusted.exit_code) == (0, 3)
    assert "could not prove who it is" in untrusted.stderr
    assert "--ca-file" in untrusted.stderr


async def test_http_and_https_taken_for_each_other_are_told(mathison: Mathison, tmp_path: Path) -> None:
    async with FakeController().serve(self_signed(tmp_path / "ca.pem")) as secure, FakeController().serve() as plain:
        without_tls = await mathison("apps", "--url", secure.url.replace("https", "http"))
        with_tls = await mathison("apps", "--url", plain.url.replace("http", "https"))

    assert (without_tls.exit_code, with_tls.exit_code) == (3, 3)
    assert "If it serves HTTPS, its address begins with https://." in without_tls.stderr
    assert f"There is no speaking TLS with {plain.url.replace('http', 'https')} (" in with_tls.stderr
    assert "its address begins with http://." in with_tls.stderr


async def test_an_address_with_a_path_is_told_from_a_missing_app(
    mathison: Mathison, controller: FakeController
) -> None:
    controller.refusals["apps"] = (404, "INVALID_REQUEST", "There is nothing like this here.")

    ended = await mathison("apps")

    assert ended.exit_code == 3
    assert f"The controller at {controller.url} has no GET /api/deployments." in ended.stderr
    assert "without a path" in ended.stderr


async def test_a_token_and_an_app_that_are_not_known_are_told_with_the_command_that_helps(
    mathison: Mathison, controller: FakeController
) -> None:
    unknown_token = await mathison("apps", MATHISON_TOKEN="mathison-api.old")
    unknown_app = await mathison("export", "shop.none")

    assert "`mathison-controller token create`" in unknown_token.stderr
    assert "`mathison apps` lists those that this token may see." in unknown_app.stderr


async def test_a_command_that_waits_for_an_answer_is_ended_by_a_signal_without_a_fault(
    start: Callable[..., Any],
) -> None:
    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        writer.close()

    asked = asyncio.Event()
    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    url = "http://{}:{}".format(*server.sockets[0].getsockname())

    async with server, start("apps", MATHISON_URL=url) as process:
        await asyncio.wait_for(asked.wait(), 20)
        process.terminate()
        _, stderr = await asyncio.wait_for(process.communicate(), 20)

    assert (process.returncode, stderr) == (130, b"Stopped.\n")


def self_signed(certificate_path: Path) -> ssl.SSLContext:
    """A server's context for 127.0.0.1; its certificate is written to `certificate_path`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path = certificate_path.with_suffix(".key")
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate_path, key_path)
    return context


async def test_every_command_explains_itself(mathison: Mathison) -> None:
    helps = await asyncio.gather(
        *(mathison(*command, "--help") for command in ([], ["apps"], ["export"], ["import"], ["inspect"], ["cancel"]))
    )

    assert [ended.exit_code for ended in helps] == [0] * 6
    assert all(str(code.value) in helps[0].text for code in ExitCode)


async def test_the_list_of_commands_cuts_no_summary_off_on_80_columns(mathison: Mathison) -> None:
    ended = await mathison("--help", COLUMNS="80")

    commands = ended.text.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
    assert len(commands) == 10
    assert [line for line in commands if not line.endswith(".") or line.endswith("...")] == []


class Terminal:
    """A command on a pseudo-terminal."""

    def __init__(self, process: asyncio.subprocess.Process, descriptor: int) -> None:
        self.process = process
        self.seen = ""
        self._descriptor = descriptor
        os.set_blocking(descriptor, False)

    def shows(self, text: str) -> bool:
        with contextlib.suppress(OSError):
            self.seen += os.read(self._descriptor, 1 << 16).decode()
        return text in self.seen

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())


async def test_on_a_terminal_an_import_asks_and_takes_no_for_an_answer(
    start: Callable[..., Any], controller: FakeController, tmp_path: Path
) -> None:
    (tmp_path / "a.sql").write_bytes(sealed_sql())
    ours, theirs = pty.openpty()

    async with start("import", "shop.db", "a.sql", stdin=theirs, stdout=theirs, stderr=theirs) as process:
        terminal = Terminal(process, ours)
        await until(lambda: terminal.shows("Replace the data of shop.db? [y/N]"))
        terminal.type("n\n")
        await asyncio.wait_for(process.wait(), 20)
        terminal.shows("")

    assert process.returncode == 130
    assert "Nothing was changed." in terminal.seen
    assert "proven whole" in terminal.seen
    assert "import" not in controller.requests
    os.close(ours)
    os.close(theirs)


async def test_ctrl_c_at_the_question_ends_the_command(
    start: Callable[..., Any], controller: FakeController, tmp_path: Path
) -> None:
    ours, theirs = pty.openpty()

    async with start("undo", "shop.db", stdin=theirs, stdout=theirs, stderr=theirs) as process:
        terminal = Terminal(process, ours)
        await until(lambda: terminal.shows("[y/N]"))
        process.send_signal(signal.SIGINT)
        await asyncio.wait_for(process.wait(), 20)
        terminal.shows("")

    assert process.returncode == 130
    assert "Traceback" not in terminal.seen
    assert controller.requests == []
    os.close(ours)
    os.close(theirs)


async def test_the_command_tells_its_version_without_a_controller(mathison: Mathison) -> None:
    ended = await mathison("--version")

    assert (ended.exit_code, ended.text.strip()) == (0, f"mathison {VERSION}")


def _without_readers(*numbers: int) -> Callable[[], None]:
    """For a child before it begins: these streams lead to a pipe that nobody reads."""

    def replace() -> None:
        reading, writing = os.pipe()
        os.close(reading)
        for number in numbers:
            os.dup2(writing, number)
        os.close(writing)

    return replace


def _closed(*numbers: int) -> Callable[[], None]:
    """As `_without_readers`: these streams are closed."""

    def close() -> None:
        for number in numbers:
            os.close(number)

    return close


def _full(*numbers: int) -> Callable[[], None]:
    """As `_without_readers`: these streams lead to a full disk."""

    def replace() -> None:
        full = os.open("/dev/full", os.O_WRONLY)
        for number in numbers:
            os.dup2(full, number)
        os.close(full)

    return replace


NOWHERE = [
    (_without_readers(1), ()),
    (_without_readers(1), ("--json",)),
    (_without_readers(1, 2), ("--progress",)),
    (_closed(1), ("--quiet",)),
    (_closed(2), ("--progress",)),
    (_closed(0, 2), ("--json",)),
    (_full(2), ("--progress",)),
]
"""Where what is said is lost, and with which options."""


@variants(("lead_nowhere", "options"), NOWHERE, every=6)
async def test_the_exit_code_tells_what_became_of_the_transfer_whoever_reads_what_is_said(
    start: Callable[..., Any],
    controller: FakeController,
    tmp_path: Path,
    lead_nowhere: Callable[[], None],
    options: tuple[str, ...],
) -> None:
    (tmp_path / "shop.sql").write_bytes(sealed_sql())

    for arguments in (("import", "shop.db", "shop.sql", "--yes"), ("export", "shop.db", "-o", "out.gz")):
        async with start(*arguments, *options, preexec_fn=lead_nowhere) as process:
            _, stderr = await asyncio.wait_for(process.communicate(), 20)
        assert process.returncode == 0, stderr
        assert b"rror" not in stderr
    async with start("undo", "shop.none", "--yes", *options, preexec_fn=lead_nowhere) as process:
        await asyncio.wait_for(process.communicate(), 20)

    assert process.returncode == 5
    assert len(controller.uploads) == 1
    assert (tmp_path / "out.gz").read_bytes() == controller.archive
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    ("lead_nowhere", "said"),
    [
        (_full(1), b"cannot be written: no space left on device."),
        (_closed(1), b"cannot be written: standard output is closed."),
        (_closed(0, 1, 2), b""),
    ],
)
@variants(
    "arguments",
    [
        ("apps",),
        ("export", "shop.db", "-o", "out.gz", "--json"),
        ("--version",),
    ],
    kept=[("export", "shop.db", "-o", "out.gz", "--json")],
)
async def test_a_result_that_cannot_be_written_is_an_error(
    start: Callable[..., Any],
    controller: FakeController,
    arguments: tuple[str, ...],
    lead_nowhere: Callable[[], None],
    said: bytes,
) -> None:
    async with start(*arguments, preexec_fn=lead_nowhere) as process:
        _, stderr = await asyncio.wait_for(process.communicate(), 20)

    assert process.returncode == 9
    assert said in stderr
    assert stderr.count(b"\n") == bool(said)


@pytest.mark.parametrize("lead_nowhere", [_closed(1), _full(1, 2)])
async def test_an_error_is_that_error_whether_its_document_can_be_written_or_not(
    start: Callable[..., Any], controller: FakeController, lead_nowhere: Callable[[], None]
) -> None:
    async with start("export", "shop.none", "--json", preexec_fn=lead_nowhere) as process:
        await asyncio.wait_for(process.communicate(), 20)

    assert process.returncode == 5


async def test_a_result_for_which_there_is_no_room_is_an_error_that_says_that_the_work_is_done(
    start: Callable[..., Any], controller: FakeController
) -> None:
    async with start("confirm", "shop.db", "--yes", preexec_fn=_full(1)) as process:
        _, stderr = await asyncio.wait_for(process.communicate(), 20)

    assert b"The command was carried out, but its result cannot be written: no space left on device." in stderr
