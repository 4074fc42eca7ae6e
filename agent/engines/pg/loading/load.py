"""An uploaded dump into an empty database: every format becomes SQL text, and one loader of ours sends it.

psql is not used: its backslash commands are what a hostile file would attack. Whoever calls `load` gives it a database
that may be dropped and a role that owns nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from agent.engines.pg.loading.archive_reading import write_sql
from agent.engines.pg.loading.loader_process import LoadReport, SqlWriter, load_sql
from agent.engines.pg.loading.spool import sweep
from agent.engines.pg.loading.terms import ORDINARY, Terms
from agent.engines.pg.loading.uploads import HEAD_BYTES, UploadForm, form_of, is_zipped_directory
from agent.engines.pg.server.clients import Clients
from agent.engines.pg.server.connection import Login
from agent.limits import Limits
from agent.unpacking import peeked, unpacked
from common.fingerprints import Fingerprint
from common.headers import ArchiveHeader
from common.seals import FingerprintFinder, SealReader

_RECIPE = "postgresql"
_LEFT_OUT = {
    "owners": "{:,} statements about owners were left out: everything belongs to the app's role.",
    "grants": "{:,} statements about privileges were left out; those of the app's database are carried over.",
    "tablespaces": "{:,} statements about tablespaces were left out: everything lies in the database's own.",
    "security labels": "{:,} security labels were left out.",
    "foreign servers": "{:,} statements about foreign servers and their user mappings were left out; those of the "
    "app's database are carried over.",
}
_BRIDGED = {
    "transaction_timeout": "the setting transaction_timeout, which it does not know, was left out",
    "statistics": "the planner's statistics were gathered anew",
    "column versions": "column versions, which only some builds of PostgreSQL keep, were left out",
}


class LoadProgress(Protocol):
    """Where `load` says how far it is; may be called for every chunk."""

    def read(self, size_bytes: int) -> None:
        """That many more bytes of the upload were taken."""

    def note(self, sentence: str) -> None:
        """What is being done now, for a person, for example "building indexes"."""


@dataclass(frozen=True)
class Deferred:
    """An object that was left out because only a superuser could make it.

    Making it with more rights is not safe: an event trigger or subscription of a hostile file acts with the rights of
    whoever meets it.
    """

    kind: str
    """"event trigger", "publication", "subscription"."""
    name: str
    """As the statement writes it, quotes included."""
    sql: str
    """The statements about it; at most 64 KiB, more is cut off."""


@dataclass
class Loaded:
    """What was loaded; only a `load` that returned has loaded everything."""

    archive_format: str
    """"sql", "custom", "tar" or "directory"."""
    header: ArchiveHeader | None = None
    """What an archive of ours says of itself."""
    layers: tuple[str, ...] = ()
    """Compression that was taken off, from the outside in."""
    source_version: str = ""
    """Of the server that was dumped, for example "15.20 (Debian 15.20-1)"; empty when the archive does not say."""
    dumper_version: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    """tables, rows, large_objects, statements."""
    warnings: list[str] = field(default_factory=list)
    extensions: dict[str, str] = field(default_factory=dict)
    """All that the archive asks for, also those that were there already, and the schema for each; empty: none named."""
    deferred: list[Deferred] = field(default_factory=list)
    bridged: list[str] = field(default_factory=list)
    """What was left out or rewritten since the server does not know it, for a person."""
    fingerprint: Fingerprint | None = None
    """Of the content, as an archive of ours says."""
    text_bytes: int = 0
    """Of the SQL text that all of it makes."""
    made: int = 0
    """Statements that make something which is locked alone, as a table, an index or a function is."""


async def load(
    chunks: AsyncIterator[bytes],
    login: Login,
    *,
    server_version_num: int,
    clients: Clients,
    spool_directory: Path,
    limits: Limits,
    pre_created_extensions: frozenset[str],
    progress: LoadProgress,
    sessions: int = 3,
    terms: Terms = ORDINARY,
) -> Loaded:
    """Load an upload into the empty database that `login` leads to.

    Args:
        chunks: the upload as sent; its own errors go through.
        login: a throw-away role that owns the database and nothing else, and may open `sessions` connections.
        spool_directory: of our own, mode 0700; what is put there is gone again afterwards.
        pre_created_extensions: those in the database already; the archive's statements about them are left out.
        sessions: how many connections load in parallel.
        terms: for a login with more rights than that.
    Returns:
        Once every byte was read and checked, every statement was executed and every session ended.
    Raises:
        ArchiveError (its subclasses): the file; nothing of it may be used, the database holds a part of it.
        LimitExceededError, NoSpaceError, AppUnavailableError, ToolFailedError: the surroundings.
    """
    sweep(spool_directory)
    seal, finder = SealReader(), FingerprintFinder()
    async with AsyncExitStack() as stack:
        head, whole = await peeked(_counted(chunks, progress), head_bytes=HEAD_BYTES)
        await stack.enter_async_context(aclosing(whole))
        is_zip = is_zipped_directory(head)
        content = await stack.enter_async_context(unpacked(whole, limits=limits, unpack_zip=not is_zip))
        head, text = await peeked(content.chunks, head_bytes=HEAD_BYTES)
        await stack.enter_async_context(aclosing(text))
        form = UploadForm.ZIP if is_zip else form_of(head)
        source: AsyncGenerator[bytes, None] | SqlWriter
        if form in (UploadForm.SQL, UploadForm.CUSTOM):
            text = await stack.enter_async_context(aclosing(_sealed(text, seal, finder)))
        if form is UploadForm.SQL:
            source = text
        else:
            if form is not UploadForm.CUSTOM:
                progress.note("reading the archive")
            source = partial(
                write_sql,
                text,
                form,
                clients=clients,
                server_version_num=server_version_num,
                spool_directory=spool_directory,
                limits=limits,
            )
        report = await load_sql(
            source,
            login,
            server_version_num=server_version_num,
            pre_created_extensions=pre_created_extensions,
            sessions=sessions,
            terms=terms,
            on_note=lambda what, rows: progress.note(f"{what}, {rows:,} rows so far" if rows else what),
        )
    return _loaded(report, form, seal, finder, content.layers)


def _loaded(
    report: LoadReport, form: UploadForm, seal: SealReader, finder: FingerprintFinder, layers: tuple[str, ...]
) -> Loaded:
    return Loaded(
        archive_format="directory" if form is UploadForm.ZIP else form.value,
        header=seal.header,
        layers=layers,
        source_version=report.source_version,
        dumper_version=report.dumper_version,
        counts=report.counts,
        warnings=[_LEFT_OUT[what].format(number) for what, number in report.left_out.items() if what in _LEFT_OUT],
        extensions=report.extensions,
        deferred=[Deferred(**one) for one in report.deferred],
        bridged=[sentence for what, sentence in _BRIDGED.items() if what in report.left_out],
        fingerprint=finder.fingerprint() if seal.is_sealed else None,
        text_bytes=report.text_bytes,
        made=report.made,
    )


async def _counted(chunks: AsyncIterator[bytes], progress: LoadProgress) -> AsyncGenerator[bytes, None]:
    async for chunk in chunks:
        progress.read(len(chunk))
        yield chunk
        del chunk


async def _sealed(
    chunks: AsyncIterator[bytes], seal: SealReader, finder: FingerprintFinder
) -> AsyncGenerator[bytes, None]:
    async for chunk in chunks:
        await asyncio.to_thread(seal.add, chunk)
        _require_importable(seal.header)
        finder.add(chunk)
        yield chunk
        del chunk
    seal.finish()
    # Of an archive in custom format it stands at the end.
    _require_importable(seal.header)


def _require_importable(header: ArchiveHeader | None) -> None:
    if header is not None:
        header.require_importable(_RECIPE)
