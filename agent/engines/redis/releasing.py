"""A server that copied us made its own master again, with its own settings, after what it has was seen and noted."""

from __future__ import annotations

import asyncio
import time

import structlog

from agent.engines.redis.connection import Connection, ReplyError, reusing
from agent.engines.redis.copied import note_copied
from agent.engines.redis.facts import ServerFacts, look
from agent.engines.redis.lending import put_back
from agent.engines.redis.marker import IN_BETWEEN, Marker
from agent.engines.redis.swap_record import Reached, SwapRecord, Way
from agent.unsettled import UnsettledError
from common.errors import AppUnavailableError, NoSpaceError, ServiceError

RELEASE_SECONDS = 20.0
"""How long a server that does not answer is waited for, before the swap is left to `recovery`."""
FREE_SECONDS = 10.0
"""At most; writers wait for it. Shorter than RELEASE_SECONDS."""
_LOOK_EVERY_SECONDS = 0.05
_log = structlog.get_logger(__name__)


async def release(connection: Connection, record: SwapRecord, *, has_lost: bool = False) -> None:
    """Have the server be its own master again, with its own settings. May be repeated.

    Args:
        connection: a new one is opened where that is lost.
        has_lost: also where it has lost what it had and got nothing for it. Else such a server stays as it is and
            refuses writes, so that the previous data can still be put back without taking any away.
    Raises:
        UnsettledError: it does not answer for RELEASE_SECONDS, refuses its own settings, or that cannot be noted; or
            it has lost what it had.
    """
    if record.agent_at is None and record.read() is None:
        return
    try:
        async with asyncio.timeout(RELEASE_SECONDS):
            while True:
                try:
                    async with reusing(connection) as one:
                        await _release(one, record, has_lost=has_lost)
                    return
                except (AppUnavailableError, ReplyError) as failure:
                    # Among them -LOADING: a replica answers REPLICAOF only between two loads.
                    _log.debug("A server is not released yet.", action="release", error=str(failure))
                await asyncio.sleep(_LOOK_EVERY_SECONDS)
    except TimeoutError:
        raise UnsettledError(f"the server did not answer for {RELEASE_SECONDS:.0f} seconds") from None
    except (ServiceError, OSError) as failure:
        raise UnsettledError(str(failure)) from failure


def may_have_evicted_marker(server: ServerFacts, way: Way) -> bool:
    """Whether data may be there although its marker is not. One that was restarted has forgotten what it evicted."""
    if not way.may_be_loaded:
        return False
    if server.run_id == way.run_id:
        return server.evicted > 0
    return server.may_evict or way.may_evict


async def _release(connection: Connection, record: SwapRecord, *, has_lost: bool) -> None:
    server = await look(connection)
    while record.agent_at is not None and server.master == record.agent_at:
        await note_what_is_there(connection, server, record)
        if not has_lost and _was_emptied(server, record.way):
            record.save_lost(server.run_id)
            raise UnsettledError("the server has dropped its data and could not load other data")
        await _until_freed(connection)
        await connection.call("REPLICAOF", "NO", "ONE")
        server = await look(connection)
        if _copied_us_alone(server, record):
            note_copied(record.directory, server)
    if (note := record.read()) is not None:
        await put_back(connection, note, run_id=server.run_id)
    # Only now: where these cannot be noted, the server is at least free.
    record.forget_agent_at()
    if note is not None:
        record.write(None)


def _copied_us_alone(server: ServerFacts, record: SwapRecord) -> bool:
    """Of one that copied us until now."""
    way = record.way
    if way is None or record.is_of_version_1:
        return False
    return way.keeps_nothing and way.run_id == server.run_id and server.master is None


def _was_emptied(server: ServerFacts, way: Way | None) -> bool:
    """Whether a replica of ours that drops its data before it loads did that, and loaded nothing."""
    return way is not None and way.drops_data and server.key_count == 0 and not server.is_copying


async def note_what_is_there(connection: Connection, server: ServerFacts, record: SwapRecord) -> None:
    """Read the marker of a replica of ours. That one evicts nothing (evict.c, isSafeToPerformEvictions); once it is a
    master, the marker may go first: it expires before most keys and is alone in its database.

    Args:
        server: as it was right before.
    """
    way = record.way
    if way is None or way.reached not in (Reached.SENT, Reached.LOADED):
        return
    try:
        value = await (await Marker.on(connection, record.key)).read(connection)
    except ReplyError as failure:
        _log.debug("A marker is not readable yet.", action="read_marker", error=str(failure))
        return
    reached: Reached = way.reached
    if record.aim is not None and value == record.aim.value:
        reached = Reached.SEEN
    elif value == IN_BETWEEN:
        reached = Reached.LOADED
    elif reached is Reached.SENT and not server.is_copying and not way.has_outlived_marker:
        reached = Reached.BEGUN
    try:
        record.reach(reached)
    except NoSpaceError as failure:
        # It is known as long as this process lives, and the server has to be let go in any case.
        _log.warning("What a server has could not be noted.", action="read_marker", error=failure.text)


async def _until_freed(connection: Connection) -> None:
    """Until a replica of ours has freed what was swapped out, which it does in the background.

    As a master it would evict new data, since the old still counts.
    """
    until = time.monotonic() + FREE_SECONDS
    while time.monotonic() < until:
        if not (await look(connection)).will_evict_for_freed_data:
            return
        await asyncio.sleep(_LOOK_EVERY_SECONDS)
