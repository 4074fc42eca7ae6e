"""The jailed child that makes an uploaded database of n8n fit for its new place: one request on stdin, one answer.

It holds both keys, hence nothing on argv; and it opens what came from an upload, hence the jail. All it changes is one
transaction, in a copy that no app reads. For the comparison in a preview it also looks at what the app has, as the
agent's user then, with nothing but the directory of that in reach, and changes nothing.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from urllib.parse import quote

import msgspec

from agent import rights
from agent.engines.n8n.contents import (
    contents_of,
    deactivate,
    enqueued_executions,
    published_agents,
    require_known,
    waiting_executions,
)
from agent.engines.n8n.encryption import warm_up
from agent.engines.n8n.fits import Fit
from agent.engines.n8n.items import items_of
from agent.engines.n8n.preparations import Active, Prepared, Request, table_locked
from agent.engines.n8n.rekeying import drop_secrets, fit_of, rekey
from agent.engines.n8n.stores import PostgresStore, SqliteStore, Store, without_triggers
from agent.engines.sqlite.bounds import (
    is_interrupted,
    is_short_of_memory,
    needed_too_much,
    sqlite_needed_too_much,
    stop_at,
    took_too_long,
)
from agent.engines.sqlite.child import connect_live
from agent.jail import enter, parse_argv
from common.errors import ArchiveDamagedError, ArchiveIncompatibleError, ServiceError, ToolFailedError
from common.sqlite_tables import is_of_unknown_module

_BUSY_SECONDS = 2.0
_KEY_NEXT_STEP = (
    "Give the key of the n8n that the data comes from (option encryption_key, or the passphrase or identity that opens "
    "the sealed one), or import with the option without_credentials=true: then all credentials are empty."
)


def main() -> None:
    """Exit status 0 whatever is wrong with the database: the answer says it."""
    jail, parent_pid, _ = parse_argv(sys.argv[1:])
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=Request)
    _warm_up(request)
    path = f"/proc/self/fd/{request.directory}"
    if request.is_live:
        enter(jail, parent_pid=parent_pid)
        path = rights.keep_to(request.directory, path)
    else:
        if request.directory >= 0 and rights.lock_into(request.directory):
            path = "/"
        enter(jail, parent_pid=parent_pid)
        rights.keep(rights.DAC_OVERRIDE)
    os.umask(0o077)
    try:
        with _opened(request, os.path.join(path, request.file)) as store:
            prepared = prepare(store, request) if request.target_key else look(store, request)
    except ServiceError as error:
        prepared = _refused(error)
    except MemoryError:
        prepared = _refused(needed_too_much(request.file or "of the archive"))
    except Exception as failure:  # whatever an upload brings about, it is no traceback for a person
        prepared = _refused(ArchiveDamagedError(f"The database cannot be worked with ({type(failure).__name__})."))
    sys.stdout.buffer.write(msgspec.json.encode(prepared))


def _refused(error: ServiceError) -> Prepared:
    return Prepared(reason=error.reason, text=error.text, next_step=error.next_step)


def prepare(store: Store, request: Request) -> Prepared:
    """Look, judge and change.

    Raises:
        ArchiveIncompatibleError: not n8n's, newer than the target, or none of the keys opens what is secret.
    """
    found = contents_of(store)
    done = Prepared(counts=found.counts, migrations=found.migrations, is_rotating=found.is_rotating)
    if request.known_migrations is not None:
        require_known(found.migrations, request.known_migrations)
    done.key_used, fit = _fitting(store, request.keys)
    done.unreadable = fit.unreadable
    if not fit.is_right:
        if not request.without_credentials:
            raise _no_key(request, fit)
        done.emptied = drop_secrets(store, request.target_key)
    elif request.keys and request.keys[done.key_used] != request.target_key:
        changed = rekey(store, request.keys[done.key_used], request.target_key)
        done.secrets = changed.secrets
    done.active = Active(found.counts["active_workflows"], published_agents(store), enqueued_executions(store))
    if request.deactivate_workflows:
        deactivate(store)
        done.deactivated, done.active = done.active, Active()
        done.counts = {**done.counts, "active_workflows": 0}
    done.waiting = waiting_executions(store)
    done.items = items_of(store, request.target_key, salt=request.salt)
    done.size_bytes = store.size_bytes()
    return done


def look(store: Store, request: Request) -> Prepared:
    """Only what can be compared with what is imported."""
    return Prepared(items=items_of(store, "".join(request.keys[:1]), salt=request.salt))


def _fitting(store: Store, keys: list[str]) -> tuple[int, Fit]:
    """The first key that fits, or the one that opens most."""
    tried = [(number, fit_of(store, key)) for number, key in enumerate(keys)] or [(-1, fit_of(store, ""))]
    for number, fit in tried:
        if fit.is_right:
            return number, fit
    return max(tried, key=lambda one: one[1].readable)


def _no_key(request: Request, fit: Fit) -> ArchiveIncompatibleError:
    what = f"{len(fit.unreadable)} secrets, among them {', '.join(fit.unreadable[:3])}"
    if len(request.keys) <= 1:
        text = f"The archive comes without its encryption key, and this n8n's own does not open it: {what}."
    else:
        text = f"The encryption key does not belong to this data: it does not open {what}."
    return ArchiveIncompatibleError(text, next_step=_KEY_NEXT_STEP)


@contextlib.contextmanager
def _opened(request: Request, path: str) -> Iterator[Store]:
    """The database in a transaction, committed when all went well.

    Raises:
        LimitExceededError: its time is over.
        AppBusyError: another session has locked a table in a server.
        ArchiveDamagedError, ToolFailedError: the database or the server does not do what is asked.
    """
    try:
        if request.is_live:
            with contextlib.closing(connect_live(path, busy_seconds=_BUSY_SECONDS)) as connection:
                connection.execute("BEGIN")
                yield SqliteStore(connection)
        elif request.directory >= 0:
            with contextlib.closing(_connect(path)) as connection:
                stop_at(connection, time.monotonic() + request.seconds)
                connection.execute("BEGIN EXCLUSIVE")
                with without_triggers(connection):
                    yield SqliteStore(connection)
                connection.execute("COMMIT")
        else:
            with _opened_in_server(request) as store:
                yield store
    except sqlite3.Error as failure:
        if is_interrupted(failure):
            raise took_too_long(request.file, request.seconds) from failure
        if is_short_of_memory(failure):
            raise sqlite_needed_too_much(request.file) from failure
        if is_of_unknown_module(failure):
            raise ArchiveIncompatibleError(
                f"The database in the archive holds a virtual table that the agent's SQLite does not know ({failure}), "
                "so what is encrypted in it cannot be encrypted again.",
                next_step="n8n makes none: drop it in a copy of the database, then import that.",
            ) from failure
        raise ArchiveDamagedError(f"The database in the archive cannot be worked with: {failure}.") from failure
    except UnicodeError as failure:
        raise ArchiveDamagedError("The database in the archive has text that is none.") from failure


@contextlib.contextmanager
def _opened_in_server(request: Request) -> Iterator[Store]:
    import psycopg

    parameters = {name: value for name, value in request.connection.items() if value is not None}
    try:
        with psycopg.connect(**parameters) as postgres:  # type: ignore[arg-type]  # a mapping of its parameters
            yield PostgresStore(postgres, request.schema)
    except psycopg.errors.LockNotAvailable as failure:
        raise table_locked() from failure
    except psycopg.errors.QueryCanceled as failure:
        raise took_too_long(str(request.connection["dbname"]), request.seconds, engine="PostgreSQL") from failure
    except psycopg.Error as failure:
        said = (failure.diag.message_primary or str(failure)).strip()
        raise ToolFailedError(f"PostgreSQL does not take the secrets encrypted again: {said}") from failure


def _connect(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(f"file:{quote(path)}?mode=rw", uri=True, isolation_level=None)
    for pragma in ("trusted_schema=OFF", "temp_store=MEMORY", "journal_mode=DELETE", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def _warm_up(request: Request) -> None:
    """Have everything loaded that is loaded at first use: nothing can be once the jail is locked."""
    if request.connection:
        # Loading it takes longer than all that is done to a SQLite file.
        import psycopg  # noqa: F401
    warm_up()
    ArchiveIncompatibleError("")


if __name__ == "__main__":
    main()
