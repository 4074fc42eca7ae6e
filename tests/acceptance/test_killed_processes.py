"""kill -9 of everything that takes part, at a random moment of export, stage and restore.

Each time: the caller learns of it, the app's data is what it was, nothing is left over, and the next transfer works.
"""

from __future__ import annotations

import os
import random
import secrets
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.acceptance.world import BROKEN, DATABASE_ID, VOLUME_ID, Content, World, wait_until
from tests.fixtures.archives import entry, tar_of
from tests.fixtures.variants import variants
from tools.demo import database_content, volume_content


@pytest.fixture
def choice() -> random.Random:
    """Random, and printed when the test fails: MATHISON_TEST_SEED repeats it."""
    seed = int(os.environ.get("MATHISON_TEST_SEED", time.time_ns() % 1_000_000))
    print(f"MATHISON_TEST_SEED={seed}")
    return random.Random(seed)


@pytest.fixture(scope="module")
def archives(deployed_world: World) -> dict[str, Path]:
    """An archive of each app as it is before all tests of this module; also warms everything up."""
    return {
        DATABASE_ID: deployed_world.export(DATABASE_ID, format="sql"),
        f"{DATABASE_ID} custom": deployed_world.export(DATABASE_ID, format="custom"),
        VOLUME_ID: deployed_world.export(VOLUME_ID),
    }


SMALL_ARCHIVES = {
    DATABASE_ID: b"--\n-- PostgreSQL database dump\n--\nCREATE TABLE t (a int);\n"
    b"--\n-- PostgreSQL database dump complete\n--\n",
    VOLUME_ID: tar_of(entry("note.txt", b"small")),
}


def assert_next_transfers_work(world: World, app_id: str) -> None:
    """Out, and in as far as can be without changing anything."""
    world.export(app_id).unlink()
    small = world.folder / "small"
    small.write_bytes(SMALL_ARCHIVES[app_id])
    answer = world.import_(app_id, small, is_dry_run=True)
    assert answer.status == 200, answer.body


@variants(
    ("name", "victim"),
    [
        (DATABASE_ID, "pg_dump"),
        (DATABASE_ID, "agent"),
        (DATABASE_ID, "controller"),
        (f"{DATABASE_ID} custom", "pg_dump"),
        (f"{DATABASE_ID} custom", "agent"),
        (VOLUME_ID, "agent"),
        (VOLUME_ID, "controller"),
    ],
    kept=[(DATABASE_ID, "agent"), (VOLUME_ID, "controller")],
)
def test_an_export_breaks_visibly_when_something_is_killed(
    world: World, archives: dict[str, Path], choice: random.Random, name: str, victim: str
) -> None:
    app_id, _, form = name.partition(" ")
    content, traces = world.content(app_id), world.traces(app_id)
    whole_bytes = archives[name].stat().st_size

    with world.exporting(app_id, format=form or ("sql" if app_id == DATABASE_ID else "")) as export:
        export.read(int(whole_bytes * choice.uniform(0.01, 0.2)))
        world.kill(app_id, victim)
        with pytest.raises(BROKEN):
            export.read_rest()

    assert len(export.received) < whole_bytes
    if victim == "pg_dump":
        assert world.transfer(export.transfer_id)["error"]["reason"] == "TOOL_FAILED"
    world.repair(app_id)
    world.wait_until_as_before(app_id, traces)
    assert world.content(app_id) == content
    assert_next_transfers_work(world, app_id)


@variants("app_id", [DATABASE_ID, VOLUME_ID])
def test_an_export_ends_when_its_client_is_killed(world: World, choice: random.Random, app_id: str) -> None:
    traces = world.traces(app_id)
    format = "?format=sql" if app_id == DATABASE_ID else ""
    # Its own id and its own file: those of another run would be there already, and say nothing of this client.
    transfer_id = f"killed-client-{secrets.token_hex(6)}"
    target = world.folder / transfer_id
    command = world.curl_command(
        f"/api/deployments/{app_id}/export-data{format}",
        "--header", f"Mathison-Transfer: {transfer_id}", "--limit-rate", "1M", "--output", target,
    )  # fmt: skip
    client = subprocess.Popen(command)
    wait_until(lambda: target.exists() and target.stat().st_size > 0, "curl has received something")
    assert world.transfer(transfer_id)["result"] is None, "it goes on until its client is killed"
    time.sleep(choice.uniform(0, 0.5))

    client.kill()
    client.wait()

    wait_until(lambda: world.transfer(transfer_id)["result"] is not None, "the transfer is over")
    assert world.transfer(transfer_id)["result"] == "cancelled"
    world.wait_until_as_before(app_id, traces)
    assert_next_transfers_work(world, app_id)


@variants(
    ("archive", "victim"),
    [
        (DATABASE_ID, "loader_child"),
        (DATABASE_ID, "agent"),
        (DATABASE_ID, "controller"),
        (f"{DATABASE_ID} custom", "pg_restore"),
        (f"{DATABASE_ID} custom", "agent"),
        (VOLUME_ID, "extractor_child"),
        (VOLUME_ID, "agent"),
        (VOLUME_ID, "controller"),
    ],
    kept=[(f"{DATABASE_ID} custom", "pg_restore"), (VOLUME_ID, "agent")],
)
def test_an_import_changes_nothing_when_something_is_killed_before_its_swap(
    world: World, archives: dict[str, Path], choice: random.Random, archive: str, victim: str
) -> None:
    app_id = archive.partition(" ")[0]
    content, traces = world.content(app_id), world.traces(app_id)
    with world.uploading(app_id, archives[archive]) as upload:
        upload.send(int(upload.size_bytes * choice.uniform(0.2, 0.9)))

        world.kill(app_id, victim)

        upload.send_rest()
        if victim == "controller":
            with pytest.raises(BROKEN):
                upload.answer()
        else:
            answer = upload.answer()
            assert answer.status in (502, 503), answer.body
            assert answer.json()["reason"] == ("AGENT_UNAVAILABLE" if victim == "agent" else "TOOL_FAILED")
    world.repair(app_id)
    world.wait_until_as_before(app_id, traces)
    assert world.content(app_id) == content
    assert_next_transfers_work(world, app_id)


@variants("app_id", [DATABASE_ID, VOLUME_ID])
def test_an_import_changes_nothing_when_its_client_is_killed_before_its_swap(
    world: World, archives: dict[str, Path], choice: random.Random, app_id: str
) -> None:
    content, traces = world.content(app_id), world.traces(app_id)
    with world.uploading(app_id, archives[app_id]) as upload:
        upload.send(int(upload.size_bytes * choice.uniform(0.2, 0.9)))

        upload.abandon()

    wait_until(lambda: world.transfer(upload.transfer_id).get("result") is not None, "the transfer is over")
    assert world.transfer(upload.transfer_id)["result"] in ("failed", "cancelled")
    world.wait_until_as_before(app_id, traces)
    assert world.content(app_id) == content
    assert_next_transfers_work(world, app_id)


@pytest.fixture(scope="module")
def sides(deployed_world: World, archives: dict[str, Path]) -> dict[str, tuple[Content, Content]]:
    """Of each app, which from now on holds other content than its archive: what it holds and what the archive holds."""
    world, archived = deployed_world, {}
    for app_id in (DATABASE_ID, VOLUME_ID):
        world.repair(app_id)
        archived[app_id] = world.content(app_id)
    database_content.write_more(world.database.dsn)
    volume_content.write_more(world.volume.directory)
    return {app_id: (world.content(app_id), content) for app_id, content in archived.items()}


@variants("victim", ["agent", "controller", "client"])
@variants("app_id", [DATABASE_ID, VOLUME_ID])
def test_a_swap_ends_on_one_side_when_something_is_killed(
    world: World,
    archives: dict[str, Path],
    sides: dict[str, tuple[Content, Content]],
    choice: random.Random,
    app_id: str,
    victim: str,
) -> None:
    old, new = sides[app_id]
    traces = world.traces(app_id)
    with world.uploading(app_id, archives[app_id]) as upload:
        upload.send_rest()
        wait_until(lambda: is_swapping(world, upload.transfer_id), "the swap has begun", seconds=60)
        time.sleep(choice.uniform(0, 0.2))

        if victim == "client":
            upload.abandon()
            wait_until(lambda: world.transfer(upload.transfer_id)["result"] is not None, "the import is over")
        else:
            world.kill(app_id, victim)
            with suppress(*BROKEN):
                # The answer may have been on its way.
                assert upload.answer().status in (200, 503)

    world.repair(app_id)
    found = world.content(app_id)
    assert found in (old, new)
    if found == new:
        assert world.ask("POST", f"/api/deployments/{app_id}/undo-import").status == 200
    world.wait_until_as_before(app_id, traces)
    assert world.content(app_id) == old
    assert_next_transfers_work(world, app_id)


def is_swapping(world: World, transfer_id: str) -> bool:
    """Also once it is over, since a swap takes a moment only."""
    state = world.transfer(transfer_id)
    assert state.get("result", "unknown") in (None, "succeeded"), state
    return state["progress"]["phase"] in ("restoring", "done")
