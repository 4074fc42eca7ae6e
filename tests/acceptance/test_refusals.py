"""What cannot be done is said clearly, changes nothing and leaves nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.acceptance.world import BROKEN, DATABASE_ID, VOLUME_ID, World, wait_until
from tests.fixtures.variants import variants

ROOM_BYTES = 512 << 20
"""How much of the disk may be written until the agent's limit is met. Other tests write and delete meanwhile."""


@variants("app_id", [DATABASE_ID, VOLUME_ID])
def test_a_second_transfer_of_an_app_is_refused_and_the_first_goes_on(world: World, app_id: str) -> None:
    archive = world.export(app_id)
    with world.exporting(app_id, format="sql" if app_id == DATABASE_ID else "") as export:
        export.read(1 << 20)

        second_export = world.ask("POST", f"/api/deployments/{app_id}/export-data")
        an_import = world.import_(app_id, archive)

        for refused in (second_export, an_import):
            assert refused.status == 409, refused.body
            assert refused.json()["reason"] == "TRANSFER_IN_PROGRESS"
            assert export.transfer_id in refused.json()["detail"]
        export.read_rest()
    assert world.transfer(export.transfer_id)["result"] == "succeeded"


def test_transfers_of_two_apps_run_at_once(world: World) -> None:
    with world.exporting(DATABASE_ID, format="sql") as one, world.exporting(VOLUME_ID) as other:
        one.read(1 << 20)
        other.read(1 << 20)
        one.read_rest()
        other.read_rest()

    assert world.transfer(one.transfer_id)["result"] == "succeeded"
    assert world.transfer(other.transfer_id)["result"] == "succeeded"


@variants("app_id", [DATABASE_ID, VOLUME_ID])
def test_an_id_stands_for_one_import_and_is_refused_for_any_other(world: World, app_id: str) -> None:
    archive = world.export(app_id)
    other = archive.with_name(f"{archive.name}-other")
    content_of_archive = archive.read_bytes()
    other.write_bytes(content_of_archive[:-1] + bytes([content_of_archive[-1] ^ 1]))
    transfer_id = f"fixed-{app_id.replace('.', '-')}"
    done = world.import_(app_id, archive, transfer_id=transfer_id)
    content = world.content(app_id)

    repeated = world.import_(app_id, archive, transfer_id=transfer_id)
    another_file = world.import_(app_id, other, transfer_id=transfer_id)
    a_dry_run = world.import_(app_id, archive, transfer_id=transfer_id, is_dry_run=True)
    assert world.ask("POST", f"/api/deployments/{app_id}/undo-import").status == 200
    after_its_undo = world.import_(app_id, archive, transfer_id=transfer_id)

    assert (done.status, repeated.status) == (200, 200), repeated.body
    assert repeated.json()["end"] == done.json()["end"]
    for refused in (another_file, a_dry_run, after_its_undo):
        assert (refused.status, refused.json()["reason"]) == (400, "INVALID_REQUEST"), refused.body
        assert transfer_id in refused.json()["detail"]
        assert "othing was changed" in refused.json()["detail"]
    assert world.content(app_id) == content


@variants("app_id", [DATABASE_ID, VOLUME_ID])
def test_an_upload_that_its_client_cuts_changes_nothing(world: World, app_id: str) -> None:
    archive = world.export(app_id)
    content, traces = world.content(app_id), world.traces(app_id)
    with world.uploading(app_id, archive) as upload:
        upload.send(upload.size_bytes - 1)

        upload.say_no_more()

        try:
            answer = upload.answer()
        except BROKEN:
            # The controller need not answer a client that has closed half of its connection.
            pass
        else:
            assert (answer.status, answer.json()["reason"]) == (400, "UPLOAD_INCOMPLETE")
    wait_until(lambda: world.transfer(upload.transfer_id)["result"] is not None, "the import is over")
    state = world.transfer(upload.transfer_id)
    assert state["result"] in ("failed", "cancelled"), state
    world.wait_until_as_before(app_id, traces)
    assert world.content(app_id) == content


@variants("app_id", [DATABASE_ID, VOLUME_ID])
def test_an_import_that_fills_the_disk_changes_nothing(world: World, app_id: str) -> None:
    archive = world.export(app_id)
    content = world.content(app_id)
    with little_room(world, app_id):
        traces = world.traces(app_id)
        with world.uploading(app_id, archive) as upload:
            upload.send(upload.size_bytes // 2)

            with ballast(world.folder / "ballast"):
                upload.send_rest()
                answer = upload.answer()

        assert (answer.status, answer.json()["reason"]) == (507, "NO_SPACE")
        world.wait_until_as_before(app_id, traces)
        assert world.content(app_id) == content
    assert world.import_(app_id, archive, is_dry_run=True).status == 200


@variants("app_id", [DATABASE_ID, VOLUME_ID], kept=[VOLUME_ID])
def test_an_app_whose_agent_is_gone_is_named_and_served_again_when_it_is_back(world: World, app_id: str) -> None:
    agent = world.deployment[app_id].agent
    agent.stop()

    exported = world.ask("POST", f"/api/deployments/{app_id}/export-data")
    listed = {app["id"]: app for app in world.ask("GET", "/api/deployments").json()["deployments"]}

    assert (exported.status, exported.json()["reason"]) == (503, "AGENT_UNAVAILABLE")
    assert app_id in exported.json()["detail"]
    assert not listed[app_id]["is_available"]
    assert all(app["is_available"] for name, app in listed.items() if name != app_id)
    world.repair(app_id)
    world.export(app_id)


def test_an_archive_with_one_flipped_bit_is_refused(world: World) -> None:
    content = world.content(DATABASE_ID)
    archive = world.export(DATABASE_ID, format="sql")
    damaged = bytearray(archive.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    archive.write_bytes(damaged)

    answer = world.import_(DATABASE_ID, archive)

    assert (answer.status, answer.json()["reason"]) == (422, "ARCHIVE_DAMAGED")
    assert world.content(DATABASE_ID) == content


@contextmanager
def little_room(world: World, app_id: str) -> Iterator[None]:
    """The agent, restarted with a limit that leaves it ROOM_BYTES of the disk, whatever the disk's size."""
    site = world.deployment[app_id]
    before = site.config_path.read_text()
    free_bytes = shutil.disk_usage(Path(site.state_directory)).free - ROOM_BYTES
    site.config_path.write_text(f"{before}\n[limits]\nfree_bytes = {free_bytes}\n")
    site.agent.stop()
    try:
        world.deployment.start_agent(app_id)
        yield
    finally:
        site.config_path.write_text(before)
        site.agent.stop()
        world.deployment.start_agent(app_id)


@contextmanager
def ballast(path: Path) -> Iterator[None]:
    """A file that takes twice ROOM_BYTES of the disk, in no time where the filesystem can reserve room."""
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 2 * ROOM_BYTES)
    try:
        yield
    finally:
        path.unlink()
