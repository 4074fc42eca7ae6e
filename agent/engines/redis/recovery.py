"""A swap that was interrupted, by the death of the agent, the server or both, brought entirely to one side.

What the server holds says its marker, or what was noted of the run in which it still is. Nothing that it took since is
overwritten: our copy of the previous data goes into a server that holds nothing at all, or a part of that copy. `judge`
is the table in docs/decisions/0304-redis-exchanged-by-replication.md.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from agent.engines.redis.connection import Connection, ConnectionLostError, Login, ReplyError, connect
from agent.engines.redis.durable import Keeping, find_keeping
from agent.engines.redis.exchange import Exchange
from agent.engines.redis.facts import ServerFacts, look
from agent.engines.redis.marker import IN_BETWEEN, Marker
from agent.engines.redis.pausing import unpause
from agent.engines.redis.releasing import may_have_evicted_marker, release
from agent.engines.redis.settings import RedisSettings
from agent.engines.redis.swap_record import Aim, Reached, SwapRecord, Way
from agent.unsettled import UnsettledError
from common.errors import AppUnavailableError, ServiceError, ToolFailedError


class Found(enum.Enum):
    """What an interrupted swap has left in a server."""

    IMPORTED = "the imported data, loaded"
    PREVIOUS = "the previous data, loaded"
    PART_OF_PREVIOUS = "the previous data, loaded, without its last commands, while writes wait"
    NOTHING = "nothing at all, and no client has written since"
    ITS_OWN = "what it had before, or what its own files brought back"
    UNKNOWN = "one or the other, or a part, and clients may have written since"


async def recover(settings: RedisSettings, record: SwapRecord, exchange: Exchange) -> Aim:
    """Find out, or decide, which data the server has afterwards. May be repeated.

    Raises:
        AppUnavailableError: it does not answer, still loads, or cannot make durable what it has; or nobody can know
            what it has. Nothing is decided.
    """
    try:
        return await _recover(settings, record, exchange)
    except UnsettledError as failure:
        raise AppUnavailableError(f"The swap is not at its end: {str(failure).rstrip('.')}.") from failure
    except ToolFailedError as failure:
        raise AppUnavailableError(failure.text, next_step=failure.next_step) from failure
    except (ConnectionLostError, ReplyError) as failure:
        raise AppUnavailableError(f"The server went away in the middle: {str(failure).rstrip('.')}.") from failure


async def _recover(settings: RedisSettings, record: SwapRecord, exchange: Exchange) -> Aim:
    login = settings.login()
    async with _reached(login, record) as connection:
        server = await look(connection)
        if server.is_loading and server.master is None:
            raise AppUnavailableError(f"{login.place} is still loading its data.")
        try:
            await release(connection, record)
        except UnsettledError:
            # One that holds nothing any more is not let go before the previous data is put back.
            if record.lost_in != server.run_id:
                raise
        if record.way is None:
            return Aim.IMPORTED if record.is_undo else Aim.PREVIOUS
        server = await look(connection)
        keeping = await find_keeping(connection, server, work_directory=record.directory)
        marker = await Marker.on(connection, record.key)
        found = judge(server, keeping, record, record.way, await marker.read(connection))
        if keeping is Keeping.NOTHING and not record.way.keeps_nothing:
            # The file that it had when this began would come back.
            keeping = Keeping.SNAPSHOTS
        if found is Found.NOTHING:
            record.save_lost(server.run_id)
        if found in (Found.NOTHING, Found.PART_OF_PREVIOUS):
            keeping = await _put_back(exchange, found)
            found = Found.PREVIOUS
        else:
            await release(connection, record, has_lost=True)
            if record.way.run_id == server.run_id:
                await unpause(connection)
    match found:
        case Found.ITS_OWN:
            return Aim.IMPORTED if record.is_undo else Aim.PREVIOUS
        case Found.UNKNOWN:
            raise AppUnavailableError(_ask(login.place, marker, record))
    aim = Aim.IMPORTED if found is Found.IMPORTED else Aim.PREVIOUS
    async with connect(login) as connection:
        # It may be known without having been noted, if our own disk was full.
        await _settle(exchange, connection, aim, Keeping.NOTHING if record.settled is aim else keeping)
    return aim


@asynccontextmanager
async def _reached(login: Login, record: SwapRecord) -> AsyncIterator[Connection]:
    """A connection to the server, which may have ended on what it loaded."""
    async with AsyncExitStack() as stack:
        try:
            connection = await stack.enter_async_context(connect(login))
        except AppUnavailableError as failure:
            if record.way is None or not (record.way.drops_data and record.way.may_be_loaded):
                raise
            raise AppUnavailableError(
                f"{failure.text} It had dropped its data to load. If it does not start since it cannot load its "
                "snapshot file (`dbfilename`), move that away and start it empty: the agent puts the previous data "
                "back.",
                next_step=failure.next_step,
            ) from failure
        yield connection


def judge(server: ServerFacts, keeping: Keeping, record: SwapRecord, way: Way, marker: str) -> Found:
    """The table.

    Args:
        way: the one that began last.
        server: its own master again, except where it is in the run in which it was seen to hold nothing.
        marker: its value; empty: it is not there.
    """
    if record.settled is not None:
        return Found.IMPORTED if record.settled is Aim.IMPORTED else Found.PREVIOUS
    if marker in _MARKED:
        return _MARKED[marker]
    is_same_run = way.run_id == server.run_id
    if is_same_run and way.reached is Reached.SEEN:
        return Found.IMPORTED if record.back is None else Found.PREVIOUS
    if is_same_run and way.reached is Reached.LOADED and record.back is None:
        return Found.IMPORTED
    if marker == IN_BETWEEN or (is_same_run and way.reached is Reached.LOADED):
        return Found.PART_OF_PREVIOUS if is_same_run and way.is_paused_still else _not_known(way)
    if _holds_nothing(server, record, way):
        return Found.NOTHING
    if _is_unknown(server, keeping, record, way):
        return _not_known(way)
    if record.is_taking_back and record.forth is not None and record.forth.run_id == server.run_id:
        # That began with the imported data in place, and was not loaded.
        return Found.IMPORTED
    return Found.ITS_OWN


_MARKED = {Aim.IMPORTED.value: Found.IMPORTED, Aim.PREVIOUS.value: Found.PREVIOUS}


def _not_known(way: Way) -> Found:
    """To count as imported keeps the previous data."""
    return Found.IMPORTED if way.has_outlived_marker else Found.UNKNOWN


def _holds_nothing(server: ServerFacts, record: SwapRecord, way: Way) -> bool:
    """Whether it has lost everything, and nothing is there that somebody wrote since.

    What `changes` and `has_saved` say of is its last start, so they alone would not do: a key that is there counts too.
    """
    if record.previous is None or server.key_count:
        return False
    if record.lost_in == server.run_id:
        return True
    return way.run_id != server.run_id and server.changes == 0 and not server.has_saved


def _is_unknown(server: ServerFacts, keeping: Keeping, record: SwapRecord, way: Way) -> bool:
    """Whether the marker's absence says nothing, or what is there is neither the one nor the other."""
    if record.previous is None:
        return False
    if record.is_of_version_1 or record.lost_in == server.run_id or may_have_evicted_marker(server, way):
        return True
    if way.may_be_loaded and way.has_outlived_marker:
        return True
    if record.forth is not None and record.forth.run_id == server.run_id:
        return False
    # It was restarted in the middle, or between the two ways.
    if record.forth is not None and may_have_evicted_marker(server, record.forth):
        return True
    # What it has saved since may be what clients gave to a server that had come back empty.
    return way.run_id != server.run_id and (way.keeps_nothing or keeping is Keeping.NOTHING)


def _ask(place: str, marker: Marker, record: SwapRecord) -> str:
    said = f"redis-cli -n {marker.database} SET {marker.name}"
    why = "in the middle it was restarted, dropped keys or got a part only, and clients may have written since"
    if record.is_of_version_1:
        why = "the swap was begun by an older agent, which noted too little of it"
    return (
        f"Nobody can know which data {place} has: {why}. It stays as it is, and the copy of the previous data is kept. "
        f"Look at it and say what it has: `{said} imported`, and that copy can be put back by an undo; or `{said} "
        "previous`, and the copy is dropped. After a day it counts as imported."
    )


async def _put_back(exchange: Exchange, found: Found) -> Keeping:
    try:
        return await exchange.put_back()
    except ServiceError as failure:
        raise ToolFailedError(
            f"The server has {found.value}; the copy of the previous data could not be put back yet: {failure.text}",
            next_step=failure.next_step,
        ) from failure


async def _settle(exchange: Exchange, connection: Connection, aim: Aim, keeping: Keeping) -> None:
    try:
        await exchange.settle(connection, aim, keeping)
    except ToolFailedError as failure:
        raise ToolFailedError(
            f"{failure.text} It has the {aim.value} data in its memory alone.", next_step=failure.next_step
        ) from failure
