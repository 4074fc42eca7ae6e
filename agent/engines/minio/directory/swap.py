"""One side's data brought in place under a running server: exchanged while frozen, restarted, checked, or put back.

In this order, whatever fails: unfreeze before the restart, or the server answers calls that wait with a false 200. One
bucket alone needs no restart as a rule: the server reads its settings anew while it is frozen.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial

import structlog

from agent.archives.members import printable
from agent.engines.minio.drive.exchange import Exchange
from agent.engines.minio.server import quiet
from agent.engines.minio.server.client import BYPASS, Client, RefusedError, RootDeniedError
from agent.engines.minio.server.freezing import Freeze, frozen, thaw_if_there
from agent.engines.minio.server.reloading import may_have_remote_targets, reload
from agent.engines.minio.server.restarting import restart, wait_until_loaded
from agent.engines.minio.server.settings import MinioSettings
from agent.engines.minio.trees.tally import Sample
from agent.engines.swapping import Side
from agent.unsettled import UnsettledError
from common.errors import AppBusyError, AppUnavailableError, ArchiveIncompatibleError, ServiceError, make_error

MOST_FROZEN_SECONDS = 30.0
_LISTED_BUCKETS = 200
_ASKED_AT_ONCE = 8
"""For the settings of a bucket each; a thousand take four seconds on a busy machine."""
_OTHER_REGION = "AuthorizationHeaderMalformed"
_CHECK_SECONDS = 30.0
_TURN_SECONDS = 1.0
"""After which a read may be waiting for a client that writes the object."""
USERS_SECONDS = 30.0
"""Twenty thousand users take three seconds here; a server that cannot load them serves root alone for so long."""
_TIERS_SECONDS = 10.0
_POLL_SECONDS = 0.05
_log = structlog.get_logger(__name__)


async def bring(client: Client, settings: MinioSettings, exchange: Exchange, target: Side) -> bool:
    """Exchange, with the server frozen meanwhile; clients wait and get no error, but for an upload that has been on its
    way for long and ends right then.

    Returns:
        Whether the server has to be restarted to take notice of all that was exchanged.
    Raises:
        AppUnavailableError: it cannot be frozen; nothing was changed.
        AppBusyError: it does not come to rest; nothing was changed.
        ToolFailedError, UnsettledError: as `Exchange.bring`.
    """
    bucket = exchange.only
    # By the drive: of settings that it cannot read, which this may be to take away, the server says nothing.
    needs_restart = not bucket or (
        exchange.has_bucket() and await asyncio.to_thread(may_have_remote_targets, exchange.drive, bucket)
    )
    if not needs_restart:
        # Or it may read the settings that were there before last.
        await wait_until_loaded(client)
    try:
        async with _frozen_for(client, settings, exchange, leaves=target.other) as freeze:
            await quiet.until_no_calls(client)
            await _to_its_end(
                partial(exchange.bring, target, until_quiet=quiet.from_thread(client), is_frozen=freeze.is_on)
            )
            if not needs_restart:
                needs_restart = not await reload(client, exchange.drive, bucket, is_there=exchange.has_bucket())
    except AppBusyError:
        # What was exchanged stays so; the restart follows at once.
        if exchange.side() is not target:
            raise
        needs_restart = True
    _log.info("The data on the drive was exchanged.", action="exchange", frozen_seconds=round(freeze.seconds, 4))
    return needs_restart


async def settle(
    client: Client,
    exchange: Exchange,
    samples: Sequence[Sample],
    buckets: Sequence[str],
    *,
    needs_restart: bool = True,
    keeps_users: bool = False,
) -> None:
    """Have the server take notice of what is in place, and see that it can read it.

    Args:
        needs_restart: as `bring` said.
        keeps_users: its users and policies are those that it had; whether it loads them is no fault of this.
    Raises:
        ArchiveIncompatibleError: it cannot.
        AppUnavailableError, ToolFailedError: it does not come back, or (RootDeniedError) keeps root out.
    """
    if needs_restart:
        await _restart_on(client, exchange)
        if not await _are_users_loaded(client) and not keeps_users:
            raise ArchiveIncompatibleError(
                f"The server did not load its users and policies within {USERS_SECONDS:.0f} seconds.",
                next_step="Its log names what it cannot read. Where the archive is encrypted, the server needs the "
                "same KMS key. With `users=keep` an import leaves users, policies and configuration as they are.",
            )
    await _require_settings(client, buckets)
    try:
        for name in buckets[:_LISTED_BUCKETS]:
            await _tolerating_absence(client, name, "", {"versions": "", "encoding-type": "url"})
        for sample in samples:
            await _read(client, sample)
    except (RefusedError, AppUnavailableError) as failure:
        raise ArchiveIncompatibleError(
            f"The server cannot read the imported data: {failure.text}",
            next_step="Where the archive is encrypted, the server needs the same KMS key; where content lies in a "
            "tier, a tier of the same name at the same place.",
        ) from failure


async def _require_settings(client: Client, buckets: Sequence[str]) -> None:
    """See that the server has read the settings of each bucket: it serves nothing of one whose settings it cannot
    read, but lists it all the same.

    Raises:
        ArchiveIncompatibleError: it has not; the bucket's name is in the text.
    """
    left = iter(buckets)

    async def ask() -> None:
        for name in left:
            try:
                await _tolerating_absence(client, name, "", {"versioning": ""})
            except (RefusedError, AppUnavailableError) as failure:
                raise _unread(client, name, failure) from failure

    try:
        async with asyncio.TaskGroup() as group:
            for number in range(_ASKED_AT_ONCE):
                group.create_task(ask(), name=f"ask for settings of buckets {number}")
    except ExceptionGroup as failures:
        # Not by `except*`, out of which Python 3.11.2 raises a group.
        failure = failures.exceptions[0]
        raise failure from failure.__cause__


def _unread(client: Client, bucket: str, failure: RefusedError | AppUnavailableError) -> ArchiveIncompatibleError:
    if isinstance(failure, RefusedError) and failure.s3_code == _OTHER_REGION:
        return ArchiveIncompatibleError(
            f"The archive's configuration sets another region than {client.account.region}, which is the agent's "
            f"`region`: {failure.text}",
            next_step="Import with `users=keep`, which leaves this server's users, policies and configuration as they "
            "are; or give this server its region by its environment (MINIO_SITE_REGION), which counts more.",
        )
    return ArchiveIncompatibleError(
        f"The server cannot read the settings of bucket {printable(bucket)}: {failure.text}",
        next_step="Its log says what is wrong with them. Set them anew on the source and export again, or import other "
        "buckets one by one, with `bucket=`.",
    )


async def carry_out(
    client: Client,
    settings: MinioSettings,
    exchange: Exchange,
    target: Side,
    settle: Callable[[bool], Awaitable[None]],
) -> ServiceError | None:
    """Bring a side in place for good; or, where the server cannot use it, the other back.

    Args:
        settle: as the function, with what `bring` said.
    Returns:
        Why it was put back; None: it was not.
    Raises:
        As `bring`; UnsettledError: it could not be put back now.
    """
    needs_restart = await bring(client, settings, exchange, target)
    try:
        await settle(needs_restart)
    except ServiceError as failure:
        await put_back(client, settings, exchange, target.other)
        which = "previous data is back" if target is Side.IMPORTED else "imported data is"
        found = make_error(
            failure.reason,
            f"The {which} in place, without what clients wrote in the moments between: {failure.text}",
            next_step=failure.next_step,
        )
        found.says_what_changed = True
        found.__cause__ = failure
        return found
    return None


async def put_back(client: Client, settings: MinioSettings, exchange: Exchange, target: Side) -> None:
    """After a failure: the side that was in place before, and the server on it.

    Raises:
        UnsettledError: it could not be brought about now.
    """
    try:
        try:
            needs_restart = await bring(client, settings, exchange, target)
        except AppUnavailableError:
            # With another's KMS key it answers no admin calls, so it cannot be frozen, and serves nobody.
            await asyncio.to_thread(exchange.bring, target)
            needs_restart = True
        if needs_restart:
            await _restart_on(client, exchange)
            await _are_users_loaded(client)
    except RootDeniedError as refusal:
        raise UnsettledError from denied(refusal)
    except ServiceError as failure:
        raise UnsettledError from failure


def denied(refusal: RootDeniedError) -> AppUnavailableError:
    """Why the previous data is on the drive and its server not on it."""
    found = AppUnavailableError(
        "The configuration that the archive has brought keeps root out, and so the agent, which cannot tell MinIO to "
        "restart. The previous data is back on its drive, with users and configuration: start MinIO again by hand, and "
        "all is as before. Until then it serves that data to the users of the archive.",
        next_step="Restart MinIO; the agent sees to the rest by itself.",
    )
    found.__cause__ = refusal
    return found


async def finish(client: Client, settings: MinioSettings, exchange: Exchange) -> Side:
    """What a killed agent began, finished; the server may be down. The restart is still owed."""
    if exchange.is_unfinished():
        try:
            async with _frozen_for(client, settings, exchange, leaves=exchange.side()):
                await _to_its_end(partial(exchange.recover, until_quiet=quiet.from_thread(client)))
        except (AppUnavailableError, AppBusyError):
            await asyncio.to_thread(exchange.recover)
    await thaw_if_there(client)
    return exchange.side()


def _frozen_for(
    client: Client, settings: MinioSettings, exchange: Exchange, *, leaves: Side
) -> AbstractAsyncContextManager[Freeze]:
    """The server frozen for an exchange; clients go on when it has come to an end, whatever becomes of us.

    Args:
        leaves: the side that the watchdog puts in place where we do not come to the end.
    """
    return frozen(
        client,
        settings,
        most_seconds=MOST_FROZEN_SECONDS,
        exchange={"drive": str(exchange.drive), "key": exchange.key, "only": exchange.only, "side": leaves.value},
        is_whole=lambda: not exchange.is_unfinished(),
    )


async def _to_its_end(work: Callable[[], object]) -> None:
    """In a thread; also where we are cancelled, since clients go on after that."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


async def _restart_on(client: Client, exchange: Exchange) -> None:
    """Restart the server on what is in place, and on nothing else."""
    await restart(client)
    await wait_until_loaded(client)
    await asyncio.to_thread(exchange.sweep)


async def _are_users_loaded(client: Client) -> bool:
    """Waits until users and policies are, which comes some moments after the first answer to S3; False: they are not.

    A server that cannot read one of them, or has another KMS key, never comes to that. It serves root all the same and
    says that it is healthy; the list of groups is what it holds back until then.
    """
    ends_at = time.monotonic() + USERS_SECONDS
    while (left := ends_at - time.monotonic()) > 0:
        try:
            await client.admin("GET", "groups", seconds=left)
        except RootDeniedError:
            raise
        except AppUnavailableError:
            await asyncio.sleep(_POLL_SECONDS)
        except RefusedError as refusal:
            # Releases of before 2023 with users of an LDAP have no such list, and say nothing of it.
            _log.warning("The server does not tell its groups.", action="load users", error=refusal.text)
            return True
        else:
            return True
    return False


async def _read(client: Client, sample: Sample) -> None:
    """Unless a client writes it just then and has to be waited for."""
    # A server reads which tiers there are some moments after it began to serve.
    ends_at = time.monotonic() + (_TIERS_SECONDS if sample.is_tiered else 0)
    while True:
        try:
            return await _read_once(client, sample)
        except RefusedError:
            if time.monotonic() > ends_at:
                raise
            await asyncio.sleep(_POLL_SECONDS)


async def _read_once(client: Client, sample: Sample) -> None:
    reading = asyncio.create_task(_tolerating_absence(client, sample.bucket, sample.key, {}), name="read a sample")
    try:
        while not (await asyncio.wait([reading], timeout=_TURN_SECONDS))[0]:
            if await quiet.has_read_that_waits(client):
                _log.info("An object that a client writes was not read.", action="check", bucket=sample.bucket)
                return
        await reading
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def _tolerating_absence(client: Client, bucket: str, key: str, query: dict[str, str]) -> None:
    try:
        await client.call("GET", bucket, key, query=query, headers=BYPASS, seconds=_CHECK_SECONDS)
    except RefusedError as failure:
        # A client may have deleted it meanwhile.
        if failure.status not in (404, 405):
            raise
