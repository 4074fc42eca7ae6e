"""The contract of a recipe, written once: what must hold for each, whatever its app.

A module of tests per recipe subclasses `ContractSuite` and gives a fixture `app`; see docs/recipes/README.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from agent.states import Phase, Result
from agent.steps import Unwatched
from common.errors import (
    ArchiveError,
    CancelledError,
    InternalError,
    InvalidRequestError,
    NothingToUndoError,
    ServiceError,
    ToolFailedError,
    UploadIncompleteError,
)
from mathison.data.v1 import agent_pb2 as messages
from mathison.data.v1 import transfer_pb2 as wire
from tests.contract import crashing, programs
from tests.contract.agents import Agent, Launch, whole
from tests.contract.app import AppUnderTest, Fill
from tests.fixtures.children import agent_children
from tests.fixtures.uploads import frame_list
from tests.fixtures.variants import variants

_CHUNK_BYTES = 1 << 20
_KEPT_THIRD = 2
third_of_the_moments = variants("third", range(3), kept=[_KEPT_THIRD])
"""At which an agent is killed."""


WRONG_FILES = {
    "nothing": b"",
    "a text": b"something to read\n" * 100,
    "binary": bytes(range(256)) * 40,
    "an image": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(200),
    "a PDF document": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + bytes(200),
    "gzip of nothing known": b"\x1f\x8b\x08\0\0\0\0\0\0\x03" + bytes(50),
}
"""What no recipe takes."""


class ContractSuite:
    """Each test begins with an app that holds `Fill.OLD`, and ends with nothing of ours in it."""

    @pytest.fixture
    async def agent(self, app: AppUnderTest, tmp_path: Path) -> AsyncIterator[Agent]:
        await app.fill(Fill.OLD)
        agent = Agent(Launch(app.recipe, app.settings, app.app, tmp_path / "agent"))
        await agent.start()
        yield agent
        while await agent.transfers.discard(""):
            pass
        require_nothing_left(app, agent)
        await agent.close()

    async def test_what_comes_out_of_a_real_agent_goes_in_again_in_every_format(
        self, app: AppUnderTest, tmp_path: Path
    ) -> None:
        await app.fill(Fill.NEW)
        new = await app.contents()
        async with programs.serving(app, tmp_path / "program") as (program, stub):
            described = await stub.Describe(messages.DescribeRequest())
            assert (described.recipe, described.can_export, described.can_import) == (app.recipe.name, True, True)
            files = [
                (format, await programs.export(stub, f"out-{number}", format, app.export_options))
                for number, format in enumerate(app.formats)
            ]
            await app.fill(Fill.OLD)
            old = await app.contents()
            for number, (format, file) in enumerate(files):
                await programs.import_(stub, f"in-{number}", file)

                assert await app.contents() == new != old, format
                await programs.undo(stub)
                assert await app.contents() == old, format
                assert [*(program.state / "work").rglob("*"), *(program.state / "journal").iterdir()] == []
                assert app.leftovers() == []

    async def test_an_empty_app_comes_out_and_goes_in_over_a_full_one(self, app: AppUnderTest, agent: Agent) -> None:
        empty = await agent.archive(app, Fill.EMPTY)
        old = await app.contents()

        await agent.import_("t-1", empty.file)

        assert await app.contents() == empty.contents != old
        await agent.undo()
        assert await app.contents() == old

    async def test_much_data_goes_into_an_empty_app(self, app: AppUnderTest, agent: Agent) -> None:
        big = await agent.archive(app, Fill.BIG)
        await app.fill(Fill.EMPTY)
        empty = await app.contents()

        await agent.import_("t-1", big.file)

        assert len(big.file) > app.big_bytes
        assert await app.contents() == big.contents
        await agent.undo()
        assert await app.contents() == empty

    async def test_a_dry_run_changes_nothing_and_leaves_nothing(self, app: AppUnderTest, agent: Agent) -> None:
        new = await agent.archive(app, Fill.NEW)
        old = await app.contents()

        state = await agent.stage("t-1", new.file, dry_run=True)

        assert state.is_done_dry_run
        assert state.preview is not None
        assert state.preview.changes
        assert {**state.preview.counts_after, **app.new_counts} == state.preview.counts_after
        assert await app.contents() == old
        require_nothing_left(app, agent)

    async def test_what_an_import_brought_is_there_also_when_the_app_is_killed_right_after(
        self, app: AppUnderTest, agent: Agent
    ) -> None:
        big = await agent.archive(app, Fill.BIG)
        old = await app.contents()

        await agent.import_("t-1", big.file)
        await app.crash()

        assert await app.contents() == big.contents
        if app.takes_fingerprints:
            assert big.receipt.fingerprint is not None
            assert (await agent.recipe.fingerprint(Unwatched())).differences(big.receipt.fingerprint) == []
        await agent.undo("t-1")
        assert await app.contents() == old
        require_nothing_left(app, agent)

    async def test_an_export_whose_caller_leaves_ends(self, app: AppUnderTest, agent: Agent) -> None:
        await app.fill(Fill.BIG)
        big = await app.contents()

        async with aclosing(agent.frames("t-1", options=app.export_options)) as flowing:
            async for frame in flowing:
                if frame.chunk:
                    break

        state = agent.state("t-1")
        assert state is not None
        assert state.result is Result.CANCELLED
        assert await app.contents() == big
        require_nothing_left(app, agent)

    async def test_an_import_cancelled_half_way_leaves_nothing(self, app: AppUnderTest, agent: Agent) -> None:
        file = (await agent.archive(app, Fill.BIG)).file
        old = await app.contents()
        arrived = asyncio.Event()

        async def half() -> AsyncIterator[wire.Frame]:
            for frame in half_of(file):
                yield frame
            arrived.set()
            await asyncio.Event().wait()

        staging = asyncio.create_task(agent.stage("t-1", half()))
        await arrived.wait()
        await agent.transfers.cancel("t-1")

        with pytest.raises(CancelledError):
            await staging
        assert await app.contents() == old
        require_nothing_left(app, agent)

    async def test_an_upload_without_its_end_changes_nothing(self, app: AppUnderTest, agent: Agent) -> None:
        file = (await agent.archive(app, Fill.BIG)).file
        old = await app.contents()

        async def half() -> AsyncIterator[wire.Frame]:
            for frame in half_of(file):
                yield frame

        with pytest.raises((UploadIncompleteError, ArchiveError)):
            await agent.stage("t-1", half())

        assert await app.contents() == old
        require_nothing_left(app, agent)

    async def test_a_file_that_was_cut_is_refused(self, app: AppUnderTest, agent: Agent) -> None:
        file = (await agent.archive(app, Fill.NEW)).file
        old = await app.contents()

        for size_bytes in (len(file) // 2, len(file) - 1):
            with pytest.raises(ArchiveError):
                await agent.stage("t-1", whole(file[:size_bytes]))

        assert await app.contents() == old
        require_nothing_left(app, agent)

    async def test_what_is_no_archive_of_this_app_is_refused(self, app: AppUnderTest, agent: Agent) -> None:
        old = await app.contents()

        for what, file in {**WRONG_FILES, **app.wrong_files}.items():
            if what in app.right_files:
                continue
            with pytest.raises(ArchiveError) as refusal:
                await agent.stage("t-1", whole(file))
            assert "othing was changed" in refusal.value.text, what
            assert what in refusal.value.text or what != "a PDF document" or not app.names_kinds

        assert await app.contents() == old
        require_nothing_left(app, agent)

    async def test_an_import_whose_tool_dies_fails_by_its_reason(self, app: AppUnderTest, agent: Agent) -> None:
        if not app.parses_in_a_child:
            assert agent_children() == []
            return
        file = (await agent.archive(app, Fill.BIG)).file
        old = await app.contents()

        async def interrupted() -> AsyncIterator[wire.Frame]:
            frames = list(frame_list(*pieces_of(file)))
            for number, frame in enumerate(frames):
                if number == len(frames) // 2:
                    children = agent_children()
                    assert children
                    for child in children:
                        child.kill()
                yield frame

        with pytest.raises(ServiceError) as failure:
            await agent.stage("t-1", interrupted())

        assert isinstance(failure.value, ToolFailedError)
        assert await app.contents() == old
        require_nothing_left(app, agent)

    async def test_an_export_of_an_app_that_cannot_be_read_fails_by_its_reason(
        self, app: AppUnderTest, agent: Agent
    ) -> None:
        async with app.unreadable():
            with pytest.raises(ServiceError) as failure:
                await agent.export("t-1", options=app.export_options)

        assert not isinstance(failure.value, InternalError)
        state = agent.state("t-1")
        assert state is not None
        assert state.result is Result.FAILED
        await agent.export("t-1", options=app.export_options)
        require_nothing_left(app, agent)

    async def test_a_swap_that_fails_leaves_the_previous_data_and_can_be_tried_again(
        self, app: AppUnderTest, agent: Agent
    ) -> None:
        new = await agent.archive(app, Fill.NEW)
        old = await app.contents()
        await agent.stage("t-1", new.file)

        async with app.unswappable():
            with pytest.raises(ServiceError) as failure:
                await agent.restore("t-1")

        assert not isinstance(failure.value, InternalError)
        assert await app.contents() == old
        await agent.restore("t-1")
        assert await app.contents() == new.contents
        async with app.unswappable():
            with pytest.raises(ServiceError) as failure:
                await agent.undo("t-1")
        assert not isinstance(failure.value, InternalError)
        assert await app.contents() == new.contents
        await agent.undo("t-1")
        assert await app.contents() == old
        require_nothing_left(app, agent)

    async def test_a_call_that_is_repeated_does_nothing_twice(self, app: AppUnderTest, agent: Agent) -> None:
        new = await agent.archive(app, Fill.NEW)
        old = await app.contents()

        staged = [await agent.stage("t-1", new.file) for _ in range(2)]
        restored = [await agent.restore("t-1") for _ in range(2)]
        staged.append(await agent.stage("t-1", new.file))

        assert [state.phase for state in staged] == [Phase.STAGED, Phase.STAGED, Phase.DONE]
        assert staged[0].receipt == staged[1].receipt
        assert restored[0] == restored[1] == staged[2]
        assert await app.contents() == new.contents
        with pytest.raises(InvalidRequestError, match="another file"):
            await agent.stage("t-1", new.file + b"\0")
        assert await app.contents() == new.contents
        undone = [await agent.undo("t-1") for _ in range(2)]
        assert undone[0] == undone[1]
        with pytest.raises(InvalidRequestError, match="undone"):
            await agent.stage("t-1", new.file)
        with pytest.raises(NothingToUndoError):
            await agent.undo()
        assert await app.contents() == old
        require_nothing_left(app, agent)

    async def test_an_undo_brings_back_what_was_there_although_the_app_wrote_since(
        self, app: AppUnderTest, agent: Agent
    ) -> None:
        new = await agent.archive(app, Fill.NEW)
        old = await app.contents()
        await agent.import_("t-1", new.file)
        await app.write_more()
        assert await app.contents() != new.contents

        await agent.undo("t-1")

        assert await app.contents() == old
        require_nothing_left(app, agent)

    async def test_only_the_latest_import_keeps_what_was_there_before_it(self, app: AppUnderTest, agent: Agent) -> None:
        new = await agent.archive(app, Fill.NEW)
        empty = await agent.archive(app, Fill.EMPTY)
        await agent.import_("t-1", empty.file)
        await agent.restart()
        await agent.import_("t-2", new.file)
        await agent.restart()

        assert [state.transfer_id for state in agent.transfers.list() if state.kept_until] == ["t-2"]
        assert await app.contents() == new.contents
        await agent.undo()
        assert await app.contents() == empty.contents
        require_nothing_left(app, agent)

    async def test_data_that_is_confirmed_leaves_nothing_of_the_previous(self, app: AppUnderTest, agent: Agent) -> None:
        new = await agent.archive(app, Fill.NEW)
        await agent.import_("t-1", new.file)

        assert await agent.transfers.discard("t-1")

        assert await app.contents() == new.contents
        require_nothing_left(app, agent)
        with pytest.raises(NothingToUndoError):
            await agent.undo()

    async def test_an_undo_whose_kept_data_somebody_removed_says_so_and_changes_nothing(
        self, app: AppUnderTest, agent: Agent
    ) -> None:
        new = await agent.archive(app, Fill.NEW)
        await agent.import_("t-1", new.file)
        await app.remove_kept(agent.launch.work_directory)

        with pytest.raises(NothingToUndoError, match="Nothing was changed"):
            await agent.undo()

        assert await app.contents() == new.contents
        assert await agent.transfers.discard("t-1")
        assert await app.contents() == new.contents
        require_nothing_left(app, agent)

    @third_of_the_moments
    @pytest.mark.timeout(600)
    async def test_an_agent_killed_while_it_confirms_leaves_the_imported_data_and_nothing_else(
        self, app: AppUnderTest, agent: Agent, third: int
    ) -> None:
        new = await agent.archive(app, Fill.NEW)

        for number in range(1 + third * app.kills_apart, 1000, 3 * app.kills_apart):
            await app.fill(Fill.OLD)
            await agent.import_(f"t-{number}", new.file)
            await agent.close()
            death = await crashing.die(agent.launch, "confirm", f"t-{number}", number)
            await agent.start()

            assert await app.contents() == new.contents, death
            require_nothing_left(app, agent, str(death))
            if death is None:
                return
        pytest.fail("no confirm got through")

    @third_of_the_moments
    @pytest.mark.timeout(600)
    async def test_an_agent_killed_at_any_moment_leaves_one_side_and_nothing_else(
        self, app: AppUnderTest, agent: Agent, tmp_path: Path, third: int
    ) -> None:
        new = await agent.archive(app, Fill.NEW)
        old = await app.contents()
        file = tmp_path / "new"
        file.write_bytes(new.file)
        sides = set()

        for number in range((1 + third) * app.kills_apart, 1000, 3 * app.kills_apart):
            transfer_id = f"t-{number}"
            await agent.close()
            death = await crashing.die(agent.launch, "import_and_undo", transfer_id, str(file), number)
            await agent.start()
            if death is None:
                break
            print(death.moment)

            state = agent.state(transfer_id)
            is_imported = state is not None and state.is_done_import and not state.undone
            assert await app.contents() == (new.contents if is_imported else old), death.moment
            if is_imported:
                await agent.undo(transfer_id)
                assert await app.contents() == old, death.moment
            require_nothing_left(app, agent, death.moment)
            await death.children_ended()
            sides.add(is_imported)

        # The other thirds of few moments may have none at which the imported data is there.
        assert sides == {False, True} or (sides == {False} and third != _KEPT_THIRD)
        assert await app.contents() == old

    async def test_an_agent_killed_in_an_export_leaves_nothing(self, app: AppUnderTest, agent: Agent) -> None:
        old = await app.contents()

        await agent.close()
        death = await crashing.die(agent.launch, "export", dict(app.export_options))
        await agent.start()

        assert death is not None
        await death.children_ended()
        assert await app.contents() == old
        require_nothing_left(app, agent)


def require_nothing_left(app: AppUnderTest, agent: Agent, moment: str = "") -> None:
    """No transfer holds anything, and nothing of ours is in the app, in the agent's directories or among processes."""
    assert [*agent.launch.work_directory.rglob("*")] == [], moment
    assert app.leftovers() == [], moment
    assert [*(agent.launch.state_directory / "journal").iterdir()] == [], moment
    assert agent_children() == [], moment


def pieces_of(file: bytes) -> Iterator[bytes]:
    """Chunks as a caller sends them."""
    return (file[start : start + _CHUNK_BYTES] for start in range(0, len(file), _CHUNK_BYTES))


def half_of(file: bytes) -> Iterator[wire.Frame]:
    """The first half of an upload, without an end."""
    return iter(frame_list(*pieces_of(file[: len(file) // 2]), end=False))
