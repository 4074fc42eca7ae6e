"""What a recipe is: how one kind of app's data is exported, staged beside the old, swapped in and taken back.

A recipe tells its app's story with engines; what is the same for all of them (locks, journal, frames, progress, limits,
expiry) is in `agent.transfers`, above the recipes. To know when writing one: anything a step creates outside the
process is written to the import's `Record` *before* it is created: `discard` and `recover` find it after a kill -9.
"""

from __future__ import annotations

import abc
import enum
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

import structlog

from agent.item_changes import ItemChanges as ItemChanges
from agent.limits import Limits as Limits
from agent.options import wants_fingerprint as wants_fingerprint
from agent.steps import Progress as Progress
from agent.steps import Step as Step
from common.errors import InvalidRequestError, NoSpaceError, ServiceError
from common.fingerprints import Fingerprint
from common.headers import FORMAT_VERSION, ArchiveHeader

_log = structlog.get_logger(__name__)

Fact = str | int | bool | None | list[str]
"""What a Record may hold under a name."""


@dataclass(frozen=True)
class Format:
    """A format that a recipe writes. The names are public: `?format=` and the archive's header carry them."""

    name: str
    media_type: str
    suffix: str
    """With its dot, for example ".sql.gz"."""
    description: str
    """For a person, for example "SQL text, compressed; opens with psql"."""


@dataclass(frozen=True)
class Capability:
    """Whether an operation is possible now, and why not where not: `obstacle` is a sentence, empty when it is."""

    obstacle: str = ""

    @property
    def is_possible(self) -> bool:
        return not self.obstacle


@dataclass(frozen=True)
class Description:
    """What a recipe says about its app now; see DescribeResponse in agent.proto."""

    engine: str
    engine_version: str = ""
    can_export: Capability = Capability()
    can_import: Capability = Capability()
    estimated_bytes: int = 0
    """Of what an export reads, before compression; 0: not known."""
    import_needs_app_stop: bool = False
    can_undo: bool = True
    warnings: tuple[str, ...] = ()
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ExportOptions:
    """What the caller asked for; `options` are the recipe's own, unknown names raise InvalidRequestError."""

    format: Format
    app_id: str
    file_name: str
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Export:
    """An archive that is about to flow.

    `chunks` yields the payload in pieces of about 1 MiB (at most 2 MiB) and ends normally only when the dump is proven
    complete. `counts` and `warnings` may grow until then; they go into the end frame.
    """

    header: ArchiveHeader
    chunks: AsyncGenerator[bytes, None]
    counts: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    fingerprint: Fingerprint | None = None
    """Of the content in this very archive, set by the time `chunks` has ended; None: the recipe takes none."""


@dataclass(frozen=True)
class Upload:
    """An archive that arrives.

    `chunks` ends normally only once the end frame came and agreed, so a recipe that saw it end knows the file is whole
    as sent; when it raises, let the error through. Until it has ended, nothing that was built may count as verified.
    `header` is what the sender says, which may be nothing, or wrong: the content decides.
    """

    header: ArchiveHeader
    chunks: AsyncIterator[bytes]
    options: Mapping[str, str] = field(default_factory=dict)


class Record(Protocol):
    """One import's line in the agent's journal: what exists outside the process on its behalf.

    Attributes:
        transfer_id: 1 to 64 characters of [A-Za-z0-9_-]; not fit for names of limited length or case.
        key: 12 digits of lower-case hex, unique per import: use it in names of databases, roles, directories.
        facts: the recipe's own, kept across restarts, readable for the agent alone. Never a secret of the agent's.
    """

    transfer_id: str
    key: str
    facts: dict[str, Fact]

    def save(self, **facts: Fact) -> None:
        """Merge into `facts` and make durable (fsync, rename) before returning."""


def names_in(record: Record, fact: str) -> list[str]:
    """A fact that is a list; empty when it was not noted."""
    names = record.facts.get(fact)
    return names if isinstance(names, list) else []


def note_done(record: Record, **facts: Fact) -> None:
    """Note a step of a swap that has been made: a full disk cannot take it back, and `recover` would find it out."""
    try:
        record.save(**facts)
    except NoSpaceError as error:
        _log.error(
            "The journal could not be written; an agent that is killed now makes the step again.",
            action="write_journal",
            transfer_id=record.transfer_id,
            error=error.text,
        )


@dataclass(frozen=True)
class Preview:
    """What an import would change; see Preview in transfer.proto."""

    changes: tuple[str, ...] = ()
    counts_now: Mapping[str, int] = field(default_factory=dict)
    counts_after: Mapping[str, int] = field(default_factory=dict)
    items: Mapping[str, ItemChanges] = field(default_factory=dict)
    bridging: str = ""
    room_bytes: int = 0
    swap_seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    header: ArchiveHeader | None = None
    """What the archive turned out to be, where the content says more than the sender did."""


class Recovered(enum.Enum):
    """Which data the app has after an interrupted swap or undo was brought to one side."""

    PREVIOUS = "previous"
    """The data from before the import; what was staged is dropped or will be by `discard`."""
    IMPORTED = "imported"
    """The imported data; the previous data is kept as after `restore`."""


class AppControl(Protocol):
    """Stops and starts the app around a swap that needs it down."""

    @property
    def is_possible(self) -> bool:
        """False: there is no way to stop the app from here."""

    async def stop(self) -> None:
        """Returns once the app has ended; AppBusyError when it does not. Stopping a stopped app is fine."""

    async def start(self) -> None:
        """Returns once the start command has; ToolFailedError when it fails. Starting a running app is fine."""


@dataclass(frozen=True)
class Surroundings:
    """What every recipe gets from the agent.

    Attributes:
        work_directory: on disk, the agent's own, mode 0700; spool files go here and are deleted by their makers.
        settings: the recipe's own table of the agent's configuration, not yet checked. May hold names of files with
            secrets, never secrets.
    """

    app_id: str
    work_directory: Path
    limits: Limits
    app_control: AppControl
    settings: Mapping[str, object]
    made_by: str = "mathison-data"

    def header_of(self, options: ExportOptions, *, recipe: str) -> ArchiveHeader:
        """What an archive of ours says of itself, whatever is in it; the recipe adds the rest, its engine for example.

        Args:
            recipe: its name.
        """
        return ArchiveHeader(
            recipe=recipe,
            format=options.format.name,
            format_version=FORMAT_VERSION,
            made_by=self.made_by,
            app_id=options.app_id,
            media_type=options.format.media_type,
            file_name=options.file_name,
        )


class Recipe(abc.ABC):
    """One kind of app. An object serves one app for the life of the agent; only one transfer runs at a time.

    Every method raises errors of `common.errors` only (anything else is a fault and answered as INTERNAL), and cleans
    up in `finally` when it is cancelled: no process, descriptor or temporary file outlives it.
    """

    name: ClassVar[str]
    """The platform's slug, for example "postgresql"."""
    data_export_description: ClassVar[str]
    """What an export holds and what it does not, for a person."""
    export_formats: ClassVar[tuple[Format, ...]]
    """The first is the default."""
    import_formats: ClassVar[tuple[str, ...]]
    journal_versions: ClassVar[tuple[int, ...]] = (1,)
    """Versions of what it notes of an import, in `Record.facts` and beside: those that it reads; it writes the last.

    To be counted up with each change after which an older agent would take it for something else, or this one what an
    older one has noted. An older number stays as long as the recipe tells the two apart and reads both right. A line of
    another version is left alone with all that it names, see `agent.versions`.
    """

    @abc.abstractmethod
    def __init__(self, surroundings: Surroundings) -> None:
        """Check the settings; InvalidRequestError names what is wrong. Does not touch the app."""

    @abc.abstractmethod
    async def describe(self) -> Description:
        """The app as it is now. An app that does not answer is a Capability with an obstacle, not an error."""

    @abc.abstractmethod
    def export_data(self, options: ExportOptions, progress: Progress) -> AbstractAsyncContextManager[Export]:
        """A consistent archive of the app's data. Leaving the context early ends the dump."""

    @abc.abstractmethod
    async def stage(self, upload: Upload, record: Record, progress: Progress) -> Preview:
        """Build and verify the upload beside the app's data; the app notices nothing.

        On failure the caller runs `discard(record)`, so only what `record` does not name has to be cleaned up here.
        """

    @abc.abstractmethod
    async def restore(self, record: Record, progress: Progress) -> str | None:
        """Swap the staged data in and make it durable; the previous data stays, found through `record`.

        Runs shielded from cancellation. Fails with the app on its previous data and the staged data still there; with
        UnsettledError where that is not so, and `recover` is to be asked.

        Returns:
            What a person should know of the data that is in place now, in a sentence or two; None as a rule.
        """

    @abc.abstractmethod
    async def undo(self, record: Record, progress: Progress) -> str | None:
        """Swap the previous data back in and drop the imported. Runs shielded; fails with the imported in place,
        or as `restore` with UnsettledError. Returns as `restore`."""

    @abc.abstractmethod
    async def discard(self, record: Record) -> None:
        """Drop what `record` still holds beside the app's data: staged data, or previous data after `restore`.

        Idempotent, and right after a crash at any point of `stage`. Never touches what the app reads.
        """

    async def put_right(self, record: Record) -> ServiceError | None:
        """After a crash in `stage`, or a restore that `recover` took back: put back what was changed beside what
        `discard` drops, or tell what cannot be. Idempotent.

        What is returned stands in the record's line before `discard` is called, together with what was changed in
        `facts` here.

        Returns:
            What was found and could be done, for the person who asked for the import; None: nothing was changed.
        """
        return None

    @abc.abstractmethod
    async def recover(self, record: Record) -> Recovered:
        """After a crash in `restore` or `undo`: bring the app to entirely one side and say which. Idempotent."""

    async def fingerprint(self, progress: Progress) -> Fingerprint:
        """The app's content as it is now, comparable with `Export.fingerprint`.

        Raises:
            InvalidRequestError: the recipe takes none.
        """
        raise InvalidRequestError(f"The recipe {self.name} takes no fingerprints.")

    async def tidy(self) -> None:  # noqa: B027  # most leave nothing but what a record names
        """The agent starts: put right what a killed one left in the app outside any import, such as a pause.

        The app may not run yet. A failure is logged and does not keep the agent from starting.
        """

    async def close(self) -> None:  # noqa: B027  # most recipes hold nothing
        """Let go of what the recipe holds for its lifetime; the agent stops."""


RecipeFactory = Callable[[Surroundings], Recipe]
