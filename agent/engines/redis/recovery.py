"""A swap that was interrupted, by the death of the agent, the server or both, brought entirely to one side.

What the server holds says its marker. Where there is none, the swap has not happened: what the server came back with is
its own, and is left alone but for one case, in which it is known to be less than what it had. A server that evicts may
have dropped the marker: unless it was read before, nobody knows then what is there, so the previous data is put back.
"""

from __future__ import annotations

from agent.engines.redis.connection import Connection, ConnectionLostError, ReplyError, connect
from agent.engines.redis.durable import Keeping, find_keeping
from agent.engines.redis.exchange import IN_BETWEEN, Exchange, may_have_evicted_marker, release
from agent.engines.redis.facts import ServerFacts, look
from agent.engines.redis.marker import Marker
from agent.engines.redis.pausing import unpause
from agent.engines.redis.settings import RedisSettings
from agent.engines.redis.swap_record import Aim, Reached, SwapRecord
from agent.unsettled import UnsettledError
from common.errors import AppUnavailableError, ToolFailedError


async def recover(settings: RedisSettings, record: SwapRecord, exchange: Exchange) -> Aim:
    """Find out, or decide, which data the server has afterwards. May be repeated.

    Raises:
        AppUnavailableError: it does not answer, or still loads; nothing is decided.
    """
    try:
        return await _recover(settings, record, exchange)
    except (UnsettledError, ConnectionLostError, ReplyError) as failure:
        raise AppUnavailableError(f"The server went away in the middle: {str(failure).rstrip('.')}.") from failure


async def _recover(settings: RedisSettings, record: SwapRecord, exchange: Exchange) -> Aim:
    login = settings.login()
    async with connect(login) as connection:
        server = await look(connection)
        if server.is_loading and server.master is None:
            raise AppUnavailableError(f"{login.place} is still loading its data.")
        await release(settings, record)
        server = await look(connection)
        if server.run_id == record.run_id:
            await unpause(login)
        if record.aim is None:
            return Aim.IMPORTED if record.is_undo else Aim.PREVIOUS
        keeping = await find_keeping(connection, server)
        if record.reached is Reached.DURABLE:
            await exchange.settle(connection, Keeping.NOTHING)
            return record.aim
        value = await (await Marker.on(connection, record.key)).read(connection)
        if value == record.aim.value or _is_swapped_for_certain(server, record, value):
            await _settle(exchange, connection, keeping)
            return record.aim
    wants_previous = record.aim is Aim.PREVIOUS
    is_half_back = value == IN_BETWEEN or (wants_previous and record.reached in (Reached.LOADED, Reached.SEEN))
    is_imported_still = value == Aim.IMPORTED.value or (record.has_outlived_marker and not record.is_undo)
    is_rolling_back = wants_previous and is_imported_still
    is_unknown = not value and may_have_evicted_marker(server, record)
    if is_half_back or is_rolling_back or is_unknown or _came_back_with_less(server, keeping, record):
        await exchange.swap(Aim.PREVIOUS)
        async with connect(login) as connection:
            await _settle(exchange, connection, keeping)
        return Aim.PREVIOUS
    return Aim.IMPORTED if record.is_undo else Aim.PREVIOUS


def _is_swapped_for_certain(server: ServerFacts, record: SwapRecord, value: str) -> bool:
    """Whether the swap was made although its marker is not there any more.

    It may have expired while there was no agent. Should the server have been restarted too, or had it not said yet that
    it has loaded, nobody can tell; then it counts as imported, since that keeps the previous data.
    """
    is_same_run = server.run_id == record.run_id
    if record.reached is Reached.SEEN and is_same_run:
        return True
    if value or record.aim is not Aim.IMPORTED:
        return False
    if record.reached is Reached.LOADED and is_same_run:
        return True
    return record.reached in (Reached.SENT, Reached.LOADED, Reached.SEEN) and record.has_outlived_marker


def _came_back_with_less(server: ServerFacts, keeping: Keeping, record: SwapRecord) -> bool:
    """Whether the server was restarted before a restore took effect, and has lost something by that which we have.

    Nothing was written since it came back, or it keeps nothing at all: then putting the copy back takes nothing away.
    Otherwise its own files, made current right before the swap, and what was written since are worth more.
    """
    if record.is_undo or record.aim is not Aim.IMPORTED or record.previous is None or server.run_id == record.run_id:
        return False
    return (server.changes == 0 and not server.has_saved) or keeping is Keeping.NOTHING


async def _settle(exchange: Exchange, connection: Connection, keeping: Keeping) -> None:
    try:
        await exchange.settle(connection, keeping)
    except ToolFailedError as failure:
        raise AppUnavailableError(failure.text, next_step=failure.next_step) from failure
