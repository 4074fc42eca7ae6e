"""The program while it serves: what is started in which order, and stopped in the reverse.

Stopping is: take no new calls, let running ones work for the grace period, cancel them, wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NoReturn

import msgspec
import structlog
from aiohttp import web

from common import heap
from common.addresses import Address
from common.files import state_directory, write_atomically
from common.settings_files import SettingsError
from common.sole_use import sole_use
from controller.admission import Admission
from controller.agents import Agents
from controller.app import make_app, make_runner
from controller.audit import Audit
from controller.clock import utc_now
from controller.connections import AcceptFaults, Site
from controller.discovery import static
from controller.discovery.inventory import Inventory
from controller.identity.ca import CertificateAuthority
from controller.identity.own import OwnIdentity
from controller.operations import Operations
from controller.server import GrpcServer, enrolment_server, program_server
from controller.servicers.data_controller import DataControllerServicer
from controller.servicers.enrolment import EnrolmentServicer
from controller.settings import LimitSettings, RestSettings, Settings
from controller.state import State

GIVE_BACK_SECONDS = 15.0
"""Between two times that freed memory is given back, transfers or not: a running one loses some milliseconds."""
_log = structlog.get_logger(__name__)


class Addresses(msgspec.Struct, frozen=True):
    """Where the controller listens, with the ports that were chosen; `addresses.json` in the state directory."""

    rest: str
    """A URL."""
    grpc: str
    """host:port."""
    enrolment: str


async def serve(settings: Settings, settings_path: Path) -> None:
    """Serve until SIGTERM or SIGINT. A second one ends the program at once.

    Raises:
        SettingsError, AuthorityError: the settings or the CA cannot be used.
        InUseError: another controller uses the state directory.
        OSError: a port or a file cannot be had.
    """
    inventory = Inventory(static.apps_of(settings.apps))
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop(number: signal.Signals) -> None:
        loop.remove_signal_handler(number)
        stopped.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    loop.set_exception_handler(AcceptFaults())
    loop.add_signal_handler(signal.SIGHUP, static.read_again, settings_path, inventory)
    async with running(settings, inventory):
        await stopped.wait()
        _log.info("The controller stops.", action="stop")


@contextlib.asynccontextmanager
async def running(settings: Settings, inventory: Inventory) -> AsyncIterator[Addresses]:
    """All ports open; leaving the context stops everything in order."""
    state = State(state_directory(settings.state))
    grace_seconds = settings.limits.stop_grace_seconds
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(sole_use(state.directory, program="controller"))
        authority = CertificateAuthority.open(state.authority)
        identity = OwnIdentity(authority)
        join_tokens = state.join_tokens()
        state.addresses.unlink(missing_ok=True)
        audit = Audit(state.audit, clock=utc_now)
        stack.callback(audit.close)
        admission = Admission(state.tokens(), audit)
        agents = Agents(identity.current, keepalive_seconds=settings.limits.agent_keepalive_seconds)
        operations = Operations(inventory=inventory, agents=agents, audit=audit)
        enrolling = EnrolmentServicer(authority, join_tokens, inventory)
        data = DataControllerServicer(operations, admission, upload_limit_bytes=settings.limits.upload_bytes)
        programs = program_server(Address.parse(settings.grpc.listen), identity, data, enrolling)
        enrolments = enrolment_server(Address.parse(settings.enrolment.listen), identity, enrolling)
        runner = make_runner(make_app(operations, admission, settings.limits), stop_grace_seconds=grace_seconds)

        async def stop() -> None:
            operations.stop()
            await asyncio.gather(
                runner.cleanup(),
                programs.stop(grace_seconds=grace_seconds),
                enrolments.stop(grace_seconds=grace_seconds),
                operations.close(grace_seconds=grace_seconds),
            )

        stack.push_async_callback(stop)
        keeping_small = asyncio.create_task(_keep_small(), name="keep small")
        stack.callback(keeping_small.cancel)
        addresses = Addresses(
            rest=await _start_rest(runner, settings.rest, settings.limits),
            grpc=str(await _start_grpc(programs, "grpc", settings.grpc.listen)),
            enrolment=str(await _start_grpc(enrolments, "enrolment", settings.enrolment.listen)),
        )
        write_atomically(state.addresses, msgspec.json.encode(addresses) + b"\n")
        stack.callback(state.addresses.unlink, missing_ok=True)
        _log.info("The controller serves.", action="start", **msgspec.structs.asdict(addresses))
        yield addresses


async def _keep_small() -> NoReturn:
    while True:
        await asyncio.sleep(GIVE_BACK_SECONDS)
        heap.give_back()


async def _start_rest(runner: web.AppRunner, settings: RestSettings, limits: LimitSettings) -> str:
    address = Address.parse(settings.listen)
    context = _tls_context(settings)
    await runner.setup()
    try:
        await Site(runner, address.host, address.port, limits=limits, ssl=context).start()
    except OSError as failure:
        raise _cannot_listen("rest", settings.listen, failure) from failure
    chosen: int = runner.addresses[0][1]
    return f"{'https' if context else 'http'}://{Address(address.host, chosen)}"


async def _start_grpc(server: GrpcServer, table: str, listen: str) -> Address:
    try:
        return await server.start()
    except OSError as failure:
        raise _cannot_listen(table, listen, failure) from failure


def _cannot_listen(table: str, listen: str, failure: OSError) -> OSError:
    """In words that name the setting; the address may be another program's, or none of this machine."""
    number = failure.errno or 0
    said = f" ({os.strerror(number).lower()})" if number > 0 else ""
    return OSError(
        f"{listen} cannot be listened on{said}; another program may do so, or the address is not this machine's. "
        f"Correct `{table}.listen` in the settings."
    )


def _tls_context(settings: RestSettings) -> ssl.SSLContext | None:
    if not settings.tls_certificate_file:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.tls_certificate_file, settings.tls_key_file)
    except (OSError, ssl.SSLError) as failure:
        raise SettingsError(f"The certificate and key of `rest` cannot be used: {failure}.") from failure
    return context
