"""Everything that a server holds exchanged for a snapshot, at once, while its clients wait or read on.

The server is told to copy us and loads beside its data (`repl-diskless-load swapdb`), so until the moment of the swap
nothing has happened, and a load that breaks off leaves nothing. Every step is in the record before it is made;
`recovery` finds out what a death in between has left.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager

import structlog

from agent.engines.redis.connection import ANSWER_SECONDS, Connection, ReplyError, connect, encode, reusing
from agent.engines.redis.durable import (
    Keeping,
    find_keeping,
    make_durable,
    require_disk,
    require_file,
    save_snapshot,
    why_by_file,
)
from agent.engines.redis.facts import ServerFacts, look, read_setting
from agent.engines.redis.fitting import require_fit
from agent.engines.redis.lending import Loan
from agent.engines.redis.marker import IN_BETWEEN, Marker
from agent.engines.redis.master import Master, Payload, Tail
from agent.engines.redis.obstacles import require_importable, require_rights
from agent.engines.redis.pausing import Pause, unpause, writes_paused
from agent.engines.redis.previous import Previous, keeping_previous
from agent.engines.redis.releasing import may_have_evicted_marker, note_what_is_there, release
from agent.engines.redis.settings import RedisSettings
from agent.engines.redis.snapshots import Snapshot
from agent.engines.redis.swap_record import Aim, Reached, SwapRecord
from agent.steps import Progress, Step
from agent.unsettled import UnsettledError
from common.errors import (
    AppUnavailableError,
    ArchiveIncompatibleError,
    NoSpaceError,
    NothingToUndoError,
    ServiceError,
    ToolFailedError,
    TransferNotFoundError,
)
from common.rdb import HEAD_BYTES, read_header

REMOVE_SECONDS = 5.0
"""At most, for a marker that nobody has to read any more; writers may wait for it."""
LENT = {
    # Without this one the server would empty itself first, or end when it meets something wrong.
    "repl-diskless-load": "swapdb",
    # A write that arrives while writes are paused would be refused instead of waiting.
    "replica-read-only": "no",
    "replica-serve-stale-data": "yes",
    # One whose last snapshot failed would end on the first command of ours (Redis 7.0 and newer, processCommand).
    "replica-ignore-disk-write-errors": "yes",
    # Nothing is evicted before it was seen what was loaded.
    "replica-ignore-maxmemory": "yes",
    # Old data is freed beside the clients, not before them (Redis 6.2; newer ones always do).
    "replica-lazy-flush": "yes",
    # So much is loaded between two answers to readers; 2 MiB as a rule: 40,000 short strings. Redis 8 has this itself.
    "loading-process-events-interval-bytes": "524288",
}
_NOTIFY = "notify-keyspace-events"
_BEFORE_TAIL = encode("CONFIG", "SET", "replica-read-only", "yes") + encode("CLIENT", "UNPAUSE")
_AFTER_TAIL = encode("CONFIG", "SET", "replica-read-only", "no")
"""A pause holds up a master's commands too, so it ends with the first of them. Those that fit into one read of the
server (16 KiB) are executed before any client that waited; of longer ones such a client sees the middle and is refused.
"""
_LOOK_EVERY_SECONDS = 0.05
_log = structlog.get_logger(__name__)


class Exchange:
    """The swap of one import, there and back."""

    def __init__(self, settings: RedisSettings, record: SwapRecord, progress: Progress, *, free_bytes: int) -> None:
        """
        Args:
            free_bytes: what has to stay free on the agent's disk.
        """
        self._settings = settings
        self._record = record
        self._progress = progress
        self._free_bytes = free_bytes

    async def restore(self) -> None:
        """Swap the staged data in; the previous is kept.

        Raises:
            ServiceError: the server has its previous data, and what was staged is still there.
            UnsettledError: see there.
        """
        self._record.open(is_undo=False)
        async with connect(self._settings.login()) as connection:
            keeping = await self.swap(connection, Aim.IMPORTED, is_asked=True)
            try:
                await self._settle(connection, Aim.IMPORTED, keeping)
            except ToolFailedError as failure:
                await self._take_back(connection, failure)
                with contextlib.suppress(ToolFailedError):
                    await self._settle(connection, Aim.PREVIOUS, keeping)
                raise ToolFailedError(
                    f"{failure.text} The imported data would be lost when it restarts, so the previous data was put "
                    "back.",
                    next_step=failure.next_step,
                ) from failure

    async def undo(self) -> None:
        """Swap the previous data back in.

        Raises:
            ServiceError: the server has the imported data, and the previous is still kept.
            UnsettledError: see there.
        """
        self._record.open(is_undo=True)
        async with connect(self._settings.login()) as connection:
            keeping = await self.swap(connection, Aim.PREVIOUS, is_asked=True)
            try:
                await self._settle(connection, Aim.PREVIOUS, keeping)
            except ToolFailedError as failure:
                raise UnsettledError(f"{failure.text} It has the previous data in its memory alone.") from failure

    async def put_back(self) -> Keeping:
        """`swap` of the previous data into a server that holds nothing at all, or a part of it.

        Its clients wait from before the last look at it, so nothing is overwritten that it told one of them it has.

        Returns:
            How the server keeps its data.
        Raises:
            ServiceError: not now. UnsettledError: see there.
        """
        login = self._settings.login()
        async with connect(login) as connection:
            server = await look(connection)
            await self._require_fit(connection, server, Aim.PREVIOUS)
            if await why_by_file(connection, server):
                # One that could not would lose it again. Before it is let go: as a replica it refuses writes.
                await save_snapshot(connection)
            try:
                await Pause(connection).renew()
                await release(connection, self._record, has_lost=True)
                server = await look(connection)
                if self._record.lost_in == server.run_id and server.key_count:
                    raise AppUnavailableError(f"{login.place} was written to at this moment.")
                return await self.swap(connection, Aim.PREVIOUS)
            finally:
                await unpause(connection)

    async def _take_back(self, connection: Connection, reason: ToolFailedError) -> None:
        try:
            async with reusing(connection) as one:
                await self.swap(one, Aim.PREVIOUS)
        except ServiceError as failure:
            raise UnsettledError(f"{reason.text} The previous data could not be put back: {failure.text}") from failure

    async def _settle(self, connection: Connection, aim: Aim, keeping: Keeping) -> None:
        """`settle` right after a swap.

        Raises:
            ToolFailedError: the server cannot write its files. UnsettledError: anything else.
        """
        try:
            async with reusing(connection, first_answer_seconds=ANSWER_SECONDS) as one:
                way = self._record.way
                if way is None or (await look(one)).run_id != way.run_id:
                    raise UnsettledError("the server was restarted")
                await self.settle(one, aim, keeping)
        except ToolFailedError:
            raise
        except ServiceError as failure:
            # It may be our own disk that is full.
            raise UnsettledError(failure.text) from failure

    async def settle(self, connection: Connection, aim: Aim, keeping: Keeping) -> None:
        """The server has what it should have: make it durable, note that, and take the marker away.

        Raises:
            ToolFailedError: the server cannot write its files.
        """
        await make_durable(connection, keeping)
        self._record.save_settled(aim)
        try:
            await (await Marker.on(connection, self._record.key)).remove(connection)
        except (ReplyError, ServiceError) as failure:
            _log.warning("A marker is left until it expires.", action="remove_marker", error=str(failure))

    async def swap(self, connection: Connection, aim: Aim, *, is_asked: bool = False) -> Keeping:
        """Load one of the two snapshots in the place of everything.

        Args:
            connection: opened before clients wait: those that do may take all the places that a server has.
            is_asked: somebody asked for it, and may be refused where it could not be done, or not be made durable.
        Returns:
            How the server keeps its data.
        Raises:
            ServiceError: nothing was changed. UnsettledError: see there.
        """
        snapshot = self._snapshot(aim)
        server = await look(connection)
        await require_importable(connection, server)
        await self._require_fit(connection, server, aim)
        keeping = await find_keeping(connection, server, work_directory=self._record.directory)
        by_file = await why_by_file(connection, server)
        if is_asked:
            saves = bool(by_file) or keeping is Keeping.SNAPSHOTS
            await require_rights(connection, self._record.key, saves=saves, is_undo=aim is Aim.PREVIOUS)
        # For a copy of the present data the server saves a snapshot in any case.
        if by_file and aim is Aim.PREVIOUS:
            await require_file(connection, by_file)
        # What `require_file` has saved shows as much of the disk as another snapshot would.
        if is_asked and (keeping is Keeping.LOG or (aim is Aim.PREVIOUS and not by_file)):
            await require_disk(connection, keeping)
        drops_data = bool(by_file) and (server.key_count > 0 or self._record.lost_in == server.run_id)
        self._record.begin(
            aim,
            run_id=server.run_id,
            may_evict=server.may_evict,
            drops_data=drops_data,
            keeps_nothing=keeping is Keeping.NOTHING,
        )
        loan = Loan(self._record, server.run_id)
        failure: BaseException | None = None
        try:
            await self._exchange(connection, snapshot, aim, loan, keeping)
        except (ServiceError, ReplyError, OSError, EOFError, TimeoutError, ValueError) as error:
            failure = error
        if not await self._was_swapped(connection, aim, server):
            raise _not_loaded(failure) from failure
        return keeping

    def _snapshot(self, aim: Aim) -> Snapshot:
        snapshot = self._record.staged if aim is Aim.IMPORTED else self._record.previous
        if snapshot is None:
            if aim is Aim.IMPORTED:
                raise TransferNotFoundError("The file that was staged is gone.", next_step="Import it again.")
            raise NothingToUndoError("The file with the previous data is gone.")
        # For recovery there is a copy all the same: without these commands it is not put back, and not dropped either.
        if aim is Aim.PREVIOUS and not self._record.tail_path.exists():
            raise NothingToUndoError("A part of the previous data is gone: the file of what was written last.")
        return snapshot

    async def _require_fit(self, connection: Connection, server: ServerFacts, aim: Aim) -> None:
        """See that a server, which may have been set up anew since, can take one of the two snapshots.

        Raises:
            ServiceError: it cannot.
        """
        is_copy = aim is Aim.PREVIOUS
        with self._snapshot(aim).path.open("rb") as file:
            header = read_header(file.read(HEAD_BYTES))
        needs = self._record.needs(aim)
        # One that is as it was then is not refused for an estimate: imported data may have grown since.
        if header is None or needs is None or (is_copy and needs.were_met_by(server)):
            return
        try:
            await require_fit(
                connection,
                server,
                header,
                needs,
                module_types=self._settings.module_types,
                subject="The copy of the previous data" if is_copy else "The file",
                drops_data=bool(await why_by_file(connection, server)),
            )
        except (ArchiveIncompatibleError, NoSpaceError) as misfit:
            if not is_copy:
                raise
            raise AppUnavailableError(
                f"The server was restarted or set up anew since its previous data was copied and cannot take that: "
                f"{misfit.text}",
                next_step="Have the server as it was then: release, modules, `databases`, maxmemory. Then try again.",
            ) from misfit

    async def _exchange(
        self, connection: Connection, snapshot: Snapshot, aim: Aim, loan: Loan, keeping: Keeping
    ) -> None:
        """From a copy of the present data to a server that is its own master again, whatever happens in between."""
        try:
            async with AsyncExitStack() as copying:
                previous: Previous | None = None
                if aim is Aim.IMPORTED:
                    self._tell("copying the present data, for an undo")
                    kept = keeping_previous(
                        connection, self._record, loan, self._progress, keeping=keeping, free_bytes=self._free_bytes
                    )
                    previous = await copying.enter_async_context(kept)
                password = await self._prepare(connection, loan, has_tail=self._tail_bytes(aim) > 0)
                async with writes_paused(connection) as pause, self._released_afterwards(connection):
                    if previous is not None:
                        await previous.complete(connection)
                        await copying.aclose()
                    self._tell("loading, while writes wait")
                    await self._load(connection, snapshot, aim, pause, password)
        finally:
            await release(connection, self._record)

    @asynccontextmanager
    async def _released_afterwards(self, connection: Connection) -> AsyncIterator[None]:
        """Before clients may write again: it would be refused, or end in a replica's data."""
        try:
            yield
        finally:
            await release(connection, self._record)

    def _tell(self, note: str) -> None:
        self._progress.step(Step.UNDOING if self._record.is_undo else Step.RESTORING, note)

    async def _prepare(self, connection: Connection, loan: Loan, *, has_tail: bool) -> str:
        """Change the server's settings for the load.

        Returns:
            What the server will say when it calls us; empty: nothing.
        """
        wanted = dict(LENT)
        if has_tail:
            # Subscribers were told of it when it happened.
            wanted[_NOTIFY] = ""
        if ipaddress.ip_address(connection.peer_host).is_loopback:
            # TLS between two processes of one machine would want a certificate of ours that the server trusts.
            wanted["tls-replication"] = "no"
        password = await read_setting(connection, "masterauth")
        if password == "":
            password = wanted["masterauth"] = secrets.token_urlsafe(24)
        await loan.change(connection, wanted)
        return password or ""

    async def _load(self, connection: Connection, snapshot: Snapshot, aim: Aim, pause: Pause, password: str) -> None:
        """Returns when the server has executed everything; raises as soon as it is clear that it will not."""
        # Its history's name changed if our copy was the first replica.
        server = await look(connection)
        marker = await Marker.on(connection, self._record.key)
        host = connection.local_host

        def before_the_end() -> None:
            pause.require_unbroken()
            self._record.reach(Reached.SENT, paused_until=time.time() + pause.left_seconds)

        async def after_load() -> None:
            self._record.reach(Reached.LOADED, paused_until=time.time() + pause.left_seconds)
            await pause.leave_to_end()

        with ExitStack() as files:
            payload = self._payload(snapshot, aim, marker, files)
            master = Master(
                payload,
                replication_id=server.replication_id,
                offset=server.replication_offset,
                password=password,
                peer_host=connection.peer_host,
                tls=self._settings.server_context(),
                before_the_end=before_the_end,
                after_load=after_load,
                on_sent=self._progress.read,
            )
            async with master:
                port = master.listen(host, self._settings.agent_port)
                reach = self._settings.reach_agent_at or host
                self._record.save_agent_at(reach, port)
                await connection.call("REPLICAOF", reach, port)
                await master.loaded()
                await note_what_is_there(connection, server, self._record)
                way = self._record.way
                if self._record.is_taking_back and way is not None and way.reached is Reached.SEEN:
                    # It may refuse that to clients, since its disk does. It came back from no file with this marker.
                    master.tell(_BEFORE_TAIL + marker.removal() + _AFTER_TAIL)
                    await _until_removed(connection, marker)

    def _payload(self, snapshot: Snapshot, aim: Aim, marker: Marker, files: ExitStack) -> Payload:
        file = files.enter_context(snapshot.path.open("rb"))
        size_bytes = self._tail_bytes(aim)
        if not size_bytes:
            return Payload(file, snapshot.body_bytes, snapshot.ending(marker.in_snapshot(aim.value)))
        tail = Tail(
            before=_BEFORE_TAIL,
            file=files.enter_context(self._record.tail_path.open("rb")),
            size_bytes=size_bytes,
            after=marker.as_commands(aim.value) + self._notifying() + _AFTER_TAIL,
        )
        return Payload(file, snapshot.body_bytes, snapshot.ending(marker.in_snapshot(IN_BETWEEN)), tail)

    def _tail_bytes(self, aim: Aim) -> int:
        return self._record.tail_path.stat().st_size if aim is Aim.PREVIOUS else 0

    def _notifying(self) -> bytes:
        """What has the server tell subscribers again, before a client writes."""
        note = self._record.read()
        before = note.before.get(_NOTIFY) if note else None
        return encode("CONFIG", "SET", _NOTIFY, before) if before else b""

    async def _was_swapped(self, connection: Connection, aim: Aim, before: ServerFacts) -> bool:
        """Whether the load took effect, asked of the data itself: an acknowledgement may be lost, or mistaken.

        As a rule it was asked already, see `note_what_is_there`.
        """
        try:
            # It has just worked hard, and an answer decides more here than anywhere.
            async with reusing(connection, first_answer_seconds=ANSWER_SECONDS) as one:
                server = await look(one)
                if server.run_id != before.run_id:
                    raise UnsettledError("the server was restarted")
                way = self._record.way
                if way is None or way.reached is Reached.SEEN:
                    return way is not None
                value = await (await Marker.on(one, self._record.key)).read(one)
        except (ReplyError, AppUnavailableError) as failure:
            raise UnsettledError(str(failure)) from failure
        if value == IN_BETWEEN:
            raise UnsettledError("the previous data is there without its last commands")
        if not value and may_have_evicted_marker(server, way):
            raise UnsettledError("the server evicts keys, and may have evicted the one that says what it has")
        return value == aim.value


async def _until_removed(connection: Connection, marker: Marker) -> None:
    for _ in range(round(REMOVE_SECONDS / _LOOK_EVERY_SECONDS)):
        if not await marker.read(connection):
            return
        await asyncio.sleep(_LOOK_EVERY_SECONDS)


def _not_loaded(failure: BaseException | None) -> ServiceError:
    if isinstance(failure, ServiceError):
        return failure
    said = f": {failure.text}" if isinstance(failure, ReplyError) else ""
    return ToolFailedError(
        f"The server did not take the data{said}. It has what it had before; its log has the cause.",
        next_step="Look into the server's log, then try again.",
    )
