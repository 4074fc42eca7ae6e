"""An example of a recipe: an app whose data is one small UTF-8 text file, replaced by rename.

Export reads the file once, which is consistent as long as the app replaces it whole, as this one does.
Import writes the upload beside the file, checks it, and renames it over the old one, which keeps a second name for
undo.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import ClassVar

from agent.recipes.base import (
    Capability,
    Description,
    Export,
    ExportOptions,
    Format,
    Preview,
    Progress,
    Recipe,
    Record,
    Recovered,
    Step,
    Surroundings,
    Upload,
)
from common.errors import (
    AppUnavailableError,
    ArchiveWrongKindError,
    InvalidRequestError,
    LimitExceededError,
    NothingToUndoError,
)
from common.headers import ArchiveHeader

MOST_BYTES = 1 << 20
"""More than this is no note; it is held in memory."""
TEXT = Format(name="txt", media_type="text/plain", suffix=".txt", description="The note as it is")


class NoteFileRecipe(Recipe):
    """One text file. Settings: `file`, an absolute path."""

    name: ClassVar[str] = "note-file"
    data_export_description: ClassVar[str] = "The text of the note."
    export_formats: ClassVar[tuple[Format, ...]] = (TEXT,)
    import_formats: ClassVar[tuple[str, ...]] = ("txt",)

    def __init__(self, surroundings: Surroundings) -> None:
        file = surroundings.settings.get("file")
        if not isinstance(file, str) or not Path(file).is_absolute():
            raise InvalidRequestError("The setting `file` of the recipe note-file has to be an absolute path.")
        self._file = Path(file)
        self._made_by = surroundings.made_by

    async def describe(self) -> Description:
        if not self._file.is_file():
            return Description(engine="file", can_export=Capability(f"There is no file {self._file}."))
        return Description(engine="file", estimated_bytes=self._file.stat().st_size)

    @asynccontextmanager
    async def export_data(self, options: ExportOptions, progress: Progress) -> AsyncIterator[Export]:
        progress.step(Step.TRANSFERRING)
        try:
            text = await asyncio.to_thread(self._file.read_bytes)
        except OSError as failure:
            raise AppUnavailableError(f"The note cannot be read: {failure.strerror}.") from failure

        async def chunks() -> AsyncGenerator[bytes, None]:
            progress.read(len(text))
            if text:
                yield text

        header = ArchiveHeader(
            recipe=self.name,
            format=TEXT.name,
            engine="file",
            app_id=options.app_id,
            made_by=self._made_by,
            media_type=TEXT.media_type,
            file_name=options.file_name,
        )
        async with aclosing(chunks()) as flowing:
            yield Export(header=header, chunks=flowing, counts={"lines": text.count(b"\n")})

    async def stage(self, upload: Upload, record: Record, progress: Progress) -> Preview:
        text = b""
        async for chunk in upload.chunks:
            progress.read(len(chunk))
            text += chunk
            if len(text) > MOST_BYTES:
                raise LimitExceededError(f"A note has at most {MOST_BYTES} bytes.")
        try:
            text.decode()
        except UnicodeDecodeError as failure:
            raise ArchiveWrongKindError("This is not a text in UTF-8.") from failure
        # What a step makes is written down before it is made: after a kill -9 `discard` finds it. Here the record's key
        # in the file's name is enough.
        await asyncio.to_thread(_write, self._staged(record), text)
        lines = text.count(b"\n")
        return Preview(changes=(f"the note would have {lines} lines",), counts_after={"lines": lines})

    async def restore(self, record: Record, progress: Progress) -> None:
        try:
            self._previous(record).unlink(missing_ok=True)
            os.link(self._file, self._previous(record))
            os.replace(self._staged(record), self._file)
        except OSError as failure:
            raise AppUnavailableError(f"The note cannot be replaced: {failure.strerror}.") from failure

    async def undo(self, record: Record, progress: Progress) -> None:
        try:
            os.replace(self._previous(record), self._file)
        except FileNotFoundError as failure:
            raise NothingToUndoError("The previous note is gone.") from failure
        except OSError as failure:
            raise AppUnavailableError(f"The note cannot be put back: {failure.strerror}.") from failure

    async def discard(self, record: Record) -> None:
        self._staged(record).unlink(missing_ok=True)
        self._previous(record).unlink(missing_ok=True)

    async def recover(self, record: Record) -> Recovered:
        # Each rename is one step for the filesystem: it happened or it did not.
        is_imported = self._previous(record).exists() and not self._staged(record).exists()
        return Recovered.IMPORTED if is_imported else Recovered.PREVIOUS

    def _staged(self, record: Record) -> Path:
        return self._file.with_name(f".{self._file.name}.{record.key}.staged")

    def _previous(self, record: Record) -> Path:
        return self._file.with_name(f".{self._file.name}.{record.key}.previous")


def _write(path: Path, text: bytes) -> None:
    with open(path, "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
