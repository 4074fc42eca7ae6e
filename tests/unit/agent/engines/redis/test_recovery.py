"""The table of what an interrupted swap has left, without a server: every line, and what must not be taken for it."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest

from agent.engines.redis.durable import Keeping
from agent.engines.redis.facts import ServerFacts
from agent.engines.redis.marker import IN_BETWEEN
from agent.engines.redis.recovery import Found, judge
from agent.engines.redis.snapshots import Snapshot
from agent.engines.redis.swap_record import Aim, Reached, SwapRecord
from tests.fakes.imports import MemoryRecord

HERE, EARLIER = "this run", "a run before"
FORTH, BACK = Aim.IMPORTED, Aim.PREVIOUS


def server(*, keys: int = 5, changes: int = 0, evicted: int = 0, may_evict: bool = False) -> ServerFacts:
    return ServerFacts(
        kind="redis",
        version="7.0.15",
        run_id=HERE,
        mode="standalone",
        master=None,
        link_is_up=False,
        replicas=0,
        replication_id="",
        replication_offset=0,
        keys={0: keys} if keys else {},
        is_loading=False,
        has_aof=False,
        changes=changes,
        libraries=0,
        evicted=evicted,
        used_bytes=2,
        data_bytes=1,
        maximum_bytes=1 if may_evict else 0,
        eviction="allkeys-random",
        system_bytes=10,
        modules={},
        raw={},
    )


class Story:
    """What was noted, step by step."""

    def __init__(self, directory: Path, *, is_undo: bool) -> None:
        self._facts = MemoryRecord()
        self.record = SwapRecord(self._facts, directory)
        self.record.open(is_undo=is_undo)
        self.record.previous_path.write_bytes(b"REDIS")
        self.record.save_previous(Snapshot(self.record.previous_path, 5, 0))

    def go(
        self, aim: Aim, reached: Reached, run_id: str = HERE, *, may_evict: bool = False, keeps_nothing: bool = False
    ) -> Story:
        self.record.begin(aim, run_id=run_id, may_evict=may_evict, drops_data=False, keeps_nothing=keeps_nothing)
        self.record.reach(reached)
        return self

    def go_as_version_1(self, aim: Aim, reached: str, run_id: str = HERE, *, begun_at: float = 0) -> Story:
        """As an agent noted it that knew only the way that began last."""
        self._facts.save(
            aim=aim.value, reached=reached, run_id=run_id, may_evict="no", begun_at=str(int(begun_at or time.time()))
        )
        return self

    def grow_old(self, aim: Aim) -> Story:
        name = f"way_to_{aim.value}"
        way = msgspec.json.decode(str(self._facts.facts[name]))
        self._facts.save(**{name: msgspec.json.encode({**way, "begun_at": 1}).decode()})
        return self

    def found(self, now: ServerFacts, marker: str = "", keeping: Keeping = Keeping.SNAPSHOTS) -> Found:
        way = self.record.way
        assert way is not None
        return judge(now, keeping, self.record, way, marker)


@pytest.fixture
def restoring(tmp_path: Path) -> Story:
    return Story(tmp_path, is_undo=False)


@pytest.fixture
def undoing(tmp_path: Path) -> Story:
    return Story(tmp_path, is_undo=True)


@pytest.mark.parametrize("run_id", [HERE, EARLIER])
@pytest.mark.parametrize("reached", [Reached.BEGUN, Reached.SENT, Reached.LOADED, Reached.SEEN])
def test_a_marker_says_what_is_there_whatever_was_noted(restoring: Story, reached: Reached, run_id: str) -> None:
    restoring.go(FORTH, reached, run_id)

    assert restoring.found(server(), "imported") is Found.IMPORTED
    assert restoring.found(server(), "previous") is Found.PREVIOUS

    restoring.go(BACK, reached, run_id)
    assert restoring.found(server(), "imported") is Found.IMPORTED
    assert restoring.found(server(keys=0), "previous") is Found.PREVIOUS


@pytest.mark.parametrize("settled", list(Aim))
def test_what_was_durable_is_what_is_there(restoring: Story, settled: Aim) -> None:
    restoring.go(FORTH, Reached.SEEN).go(BACK, Reached.BEGUN, EARLIER)
    restoring.record.save_settled(settled)

    assert restoring.found(server(keys=0), keeping=Keeping.NOTHING).name == settled.name


@pytest.mark.parametrize("reached", [Reached.LOADED, Reached.SEEN])
def test_an_import_seen_in_this_run_is_there_without_its_marker(restoring: Story, reached: Reached) -> None:
    now = server(evicted=3, may_evict=True)
    assert restoring.go(FORTH, reached).found(now) is Found.IMPORTED
    assert restoring.go(BACK, Reached.BEGUN).found(now) is Found.IMPORTED


def test_a_way_back_seen_in_this_run_is_the_previous_data(restoring: Story, undoing: Story) -> None:
    for story in (restoring.go(FORTH, Reached.SEEN), undoing):
        assert story.go(BACK, Reached.SEEN).found(server(keys=0)) is Found.PREVIOUS


def test_a_part_of_the_previous_data_is_completed_only_while_writes_wait(undoing: Story) -> None:
    undoing.go(BACK, Reached.BEGUN).record.reach(Reached.LOADED, paused_until=time.time() + 60)
    assert undoing.found(server()) is Found.PART_OF_PREVIOUS

    # By another recovery too, as long as nothing else was sent.
    undoing.record.begin(BACK, run_id=HERE, may_evict=False, drops_data=False, keeps_nothing=False)
    assert undoing.found(server()) is Found.PART_OF_PREVIOUS
    assert undoing.found(server(), IN_BETWEEN) is Found.PART_OF_PREVIOUS

    undoing.record.reach(Reached.LOADED, paused_until=time.time() - 1)
    assert undoing.found(server()) is Found.UNKNOWN
    assert undoing.found(server(), IN_BETWEEN) is Found.UNKNOWN
    assert undoing.go(BACK, Reached.LOADED, EARLIER).found(server(), IN_BETWEEN) is Found.UNKNOWN


@pytest.mark.parametrize("keeping", list(Keeping))
def test_only_a_server_that_came_back_empty_and_was_not_written_to_gets_the_copy(
    restoring: Story, undoing: Story, keeping: Keeping
) -> None:
    for story, aim in ((restoring, FORTH), (undoing, BACK)):
        story.go(aim, Reached.BEGUN, EARLIER)
        assert story.found(server(keys=0), keeping=keeping) is Found.NOTHING
        assert story.found(server(keys=0, changes=2), keeping=keeping) is not Found.NOTHING
        assert story.found(server(keys=1), keeping=keeping) is not Found.NOTHING

        # The same run: somebody deleted all of it.
        story.go(aim, Reached.BEGUN)
        assert story.found(server(keys=0), keeping=keeping) is Found.ITS_OWN


def test_a_copy_that_is_not_complete_is_never_put_back(restoring: Story) -> None:
    restoring.record.open(is_undo=False)
    restoring.go(FORTH, Reached.BEGUN, EARLIER)

    assert restoring.found(server(keys=0), keeping=Keeping.NOTHING) is Found.ITS_OWN


def test_what_was_seen_to_hold_nothing_is_remembered_by_a_second_recovery(restoring: Story) -> None:
    restoring.go(FORTH, Reached.SENT, EARLIER)
    restoring.record.save_lost(HERE)
    restoring.go(BACK, Reached.BEGUN)

    assert restoring.found(server(keys=0, changes=9)) is Found.NOTHING
    assert restoring.found(server(keys=1)) is Found.UNKNOWN


@pytest.mark.parametrize("reached", [Reached.SENT, Reached.LOADED, Reached.SEEN])
def test_a_server_that_evicts_and_was_restarted_is_not_known(
    restoring: Story, undoing: Story, reached: Reached
) -> None:
    for story, aim in ((restoring, FORTH), (undoing, BACK)):
        story.go(aim, reached, EARLIER, may_evict=True)
        assert story.found(server()) is Found.UNKNOWN
        assert story.found(server(keys=0)) is Found.NOTHING
        assert story.grow_old(aim).found(server()) is Found.IMPORTED

    # A way back that has only begun does not make it known.
    restoring.go(FORTH, reached, EARLIER, may_evict=True).go(BACK, Reached.BEGUN)
    assert restoring.found(server()) is Found.UNKNOWN


def test_a_server_that_keeps_nothing_and_was_filled_again_is_not_known(restoring: Story) -> None:
    restoring.go(FORTH, Reached.BEGUN, EARLIER)

    assert restoring.found(server(), keeping=Keeping.NOTHING) is Found.UNKNOWN
    assert restoring.found(server(), keeping=Keeping.LOG) is Found.ITS_OWN
    assert restoring.grow_old(FORTH).found(server(), keeping=Keeping.NOTHING) is Found.IMPORTED


@pytest.mark.parametrize("keeping", list(Keeping))
def test_nor_is_one_that_kept_nothing_when_the_swap_began_whatever_it_does_now(
    restoring: Story, keeping: Keeping
) -> None:
    restoring.go(FORTH, Reached.BEGUN, EARLIER, keeps_nothing=True)
    assert restoring.found(server(), keeping=keeping) is Found.UNKNOWN

    restoring.go(FORTH, Reached.BEGUN, keeps_nothing=True)
    assert restoring.found(server(), keeping=keeping) is Found.ITS_OWN


@pytest.mark.parametrize("run_id", [HERE, EARLIER])
def test_a_marker_that_may_have_expired_counts_as_imported(restoring: Story, run_id: str) -> None:
    assert restoring.go(FORTH, Reached.SENT, run_id).grow_old(FORTH).found(server()) is Found.IMPORTED
    assert restoring.go(FORTH, Reached.BEGUN, run_id).grow_old(FORTH).found(server()) is Found.ITS_OWN


@pytest.mark.parametrize("reached", [Reached.SENT, Reached.LOADED, Reached.SEEN])
def test_a_server_that_was_restarted_without_the_marker_has_what_its_files_held(
    restoring: Story, undoing: Story, reached: Reached
) -> None:
    assert restoring.go(FORTH, reached, EARLIER).found(server()) is Found.ITS_OWN
    assert restoring.go(BACK, Reached.BEGUN, EARLIER).found(server()) is Found.ITS_OWN
    assert undoing.go(BACK, reached, EARLIER).found(server()) is Found.ITS_OWN


@pytest.mark.parametrize("run_id", [HERE, EARLIER])
@pytest.mark.parametrize("reached", ["begun", "sent", "loaded", "seen"])
@pytest.mark.parametrize("aim", list(Aim))
def test_what_an_older_agent_noted_is_never_taken_for_nothing(
    restoring: Story, undoing: Story, aim: Aim, reached: str, run_id: str
) -> None:
    for story in (restoring, undoing):
        story.go_as_version_1(aim, reached, run_id)
        assert story.found(server(), "imported") is Found.IMPORTED
        assert story.found(server(keys=0), "previous") is Found.PREVIOUS
        for now in (server(), server(keys=0, changes=1), server(evicted=3, may_evict=True)):
            assert story.found(now) is Found.UNKNOWN
            assert story.found(now, IN_BETWEEN) is Found.UNKNOWN
        assert story.found(server(keys=0)) is (Found.NOTHING if run_id == EARLIER else Found.UNKNOWN)

        story.go_as_version_1(aim, reached, run_id, begun_at=1)
        assert story.found(server()) is Found.IMPORTED


@pytest.mark.parametrize("aim", list(Aim))
def test_what_an_older_agent_noted_as_durable_is_what_is_there(restoring: Story, aim: Aim) -> None:
    restoring.go_as_version_1(aim, "durable", EARLIER)

    assert restoring.found(server()).name == aim.name


def test_what_an_older_agent_noted_counts_beside_what_was_done_since(restoring: Story) -> None:
    restoring.go_as_version_1(FORTH, "sent", EARLIER).go(BACK, Reached.BEGUN)
    assert restoring.found(server()) is Found.UNKNOWN

    restoring.go(BACK, Reached.SEEN)
    assert restoring.found(server()) is Found.PREVIOUS


def test_what_an_older_agent_had_not_begun_is_not_begun(restoring: Story) -> None:
    restoring.go_as_version_1(FORTH, "durable", EARLIER)

    restoring.record.open(is_undo=True)

    assert (restoring.record.way, restoring.record.settled) == (None, None)
