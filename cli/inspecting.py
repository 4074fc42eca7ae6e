"""`mathison inspect`: what an archive is and whether it is whole, told offline and in flat memory.

The verdict has four degrees (see `cli.contents.Completeness`), since most formats of others cannot prove that nothing
in them was changed; archives of Mathison Data can.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import os
import sqlite3
import stat
import zipfile
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

import msgspec

from cli.contents import HEAD_BYTES, PIECE_BYTES, Completeness, Findings, is_known, look
from cli.failures import Explanation, LocalFileError, explain, said_by
from cli.output import counts_text, moment_text, size_text
from cli.session import Session
from cli.worker import Worker
from common.codecs import PeekedFile, UnpackedFile, codec_of
from common.errors import (
    ArchiveDamagedError,
    ArchiveIncompatibleError,
    ArchiveTruncatedError,
    ArchiveWrongKindError,
    ServiceError,
)
from common.fingerprints import Fingerprint
from common.headers import ArchiveHeader
from common.readers import Reader
from common.seals import FingerprintFinder, SealReader
from common.sqlite_tables import quick_check
from common.zip_ends import require_one_end
from common.zip_names import name_of

OnBytes = Callable[[int, int], None]
"""Told how many bytes were read so far and how many there are."""


_ZIP_FAILURES = (zipfile.BadZipFile, EOFError, OSError, ValueError, zlib.error, lzma.LZMAError)


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints. `kind` is empty for a file of no kind that is known; `error` is set for one to refuse."""

    file: str
    size_bytes: int
    sha256: str
    kind: str
    title: str
    compression: tuple[str, ...]
    content_bytes: int
    header: ArchiveHeader | None
    fingerprint: Fingerprint | None
    facts: Mapping[str, str]
    counts: Mapping[str, int]
    completeness: Completeness
    evidence: tuple[str, ...]
    error: Explanation | None


def open_archive(name: str) -> BinaryIO:
    """The file, open for reading; LocalFileError says why not."""
    try:
        file = io.FileIO(name)
    except OSError as failure:
        raise LocalFileError(f"{name} cannot be read: {said_by(failure)}.") from failure
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise LocalFileError(f"{name} is not an ordinary file.", next_step="Name an archive.")
    return file


async def inspect_file(
    file: BinaryIO, path: Path, session: Session, *, is_looked_into: bool = True, unpacks_zip: bool = True
) -> Inspection:
    """`inspect` beside the event loop and with progress; the file is at its beginning again afterwards."""
    worker = Worker("inspect the file")
    with session.gauge() as gauge:
        gauge.enter("checking", path.name)

        def show(done_bytes: int, total_bytes: int) -> None:
            gauge.move(done_bytes)
            gauge.measure(done_bytes, total_bytes)

        try:
            return await worker.run(
                partial(inspect, file, path, show, is_looked_into=is_looked_into, unpacks_zip=unpacks_zip)
            )
        except OSError as failure:
            raise LocalFileError(f"{path} cannot be read: {said_by(failure)}.") from failure
        finally:
            worker.close(wait=False)


def inspect(
    file: BinaryIO, path: Path, on_bytes: OnBytes, *, is_looked_into: bool = True, unpacks_zip: bool = True
) -> Inspection:
    """Read an archive from its beginning to its end.

    Args:
        file: open for reading, without a buffer, seekable; at its beginning again afterwards.
        path: of the same file, for engines that open it themselves.
        is_looked_into: False computes size and SHA-256 only.
        unpacks_zip: the only file in a zip is what counts; False: it is one file of an app's, which may hold anything.
    """
    size_bytes = os.fstat(file.fileno()).st_size
    raw = _Counted(file, lambda count: on_bytes(count, size_bytes))
    found, content = Findings(), _Content(raw)
    error: Explanation | None = None
    try:
        if is_looked_into:
            _read_through(file, path, content, found, unpacks_zip=unpacks_zip)
        else:
            found.kind, found.title = "file", "Not looked into"
    except (ArchiveWrongKindError, ArchiveIncompatibleError) as failure:
        error = explain(failure)
    except ServiceError as failure:
        found.completeness = "damaged"
        error = explain(failure)
    if error is None and not found.kind:
        error = explain(ArchiveWrongKindError("The file is of no kind that Mathison Data knows."))
    if content.seal.header is not None:
        found.title = _our_title(content.seal.header)
    # What a damaged file, or one read by another door, has not shown yet still belongs to its digest.
    raw.drain()
    file.seek(0)
    return Inspection(
        file=str(path),
        size_bytes=raw.size_bytes,
        sha256=raw.sha256,
        kind=found.kind,
        title=found.title or "Unknown file",
        compression=tuple(content.layers),
        content_bytes=content.size_bytes,
        header=content.seal.header,
        fingerprint=content.fingerprint,
        facts=found.facts,
        counts=found.counts,
        completeness=found.completeness,
        evidence=tuple(found.evidence),
        error=error,
    )


def _read_through(file: BinaryIO, path: Path, content: _Content, found: Findings, *, unpacks_zip: bool) -> None:
    if (archive := _zip_of_many(file, found, unpacks_one=unpacks_zip)) is not None:
        content.layers = ["zip"]
        _look_at_zip(file, archive, found)
    else:
        content.unpack()
        look(PeekedFile(io.BufferedReader(content, PIECE_BYTES), head_bytes=HEAD_BYTES), found)
        content.seal.finish()
        if found.kind == "sqlite" and not content.layers:
            _check_sqlite(path, found)
    if content.layers:
        found.evidence.append(f"Its {' and '.join(content.layers)} data unpacks to its end without an error.")
    if content.seal.is_sealed:
        content.find_fingerprint()
        _judge(content.seal.header, content.fingerprint)
        found.conclude("proven", "The SHA-256 at its end agrees with all of its content.")


def describe_briefly(inspection: Inspection) -> str:
    """One line for a question or a heading."""
    title = inspection.title if inspection.kind else "of no kind that is known here"
    parts = [title, size_text(inspection.size_bytes) or "empty"]
    if inspection.header is not None:
        parts += [f"of {inspection.header.app_id}"] if inspection.header.app_id else []
        parts += [f"read {moment_text(inspection.header.created_at)}"] if inspection.header.created_at else []
    counts = inspection.counts or (inspection.header.counts if inspection.header else {})
    parts += [counts_text(counts)] if counts else []
    parts.append({"proven": "proven whole", "damaged": "damaged"}.get(inspection.completeness, ""))
    return ", ".join(part for part in parts if part)


def _judge(header: ArchiveHeader | None, fingerprint: Fingerprint | None) -> None:
    """Refuse what no import takes for what it says of itself."""
    if header is None:
        return
    header.require_known_version()
    if header.recipe and fingerprint is not None:
        name = fingerprint.scheme.partition("/")[0]
        if name != header.recipe and not name.startswith(f"{header.recipe}-"):
            raise ArchiveDamagedError(
                f"The archive says that it is an export of recipe {header.recipe!r}, and its fingerprint is of "
                f"{fingerprint.scheme!r}.",
                next_step="Take another copy of the file, or export again.",
            )


def _our_title(header: ArchiveHeader) -> str:
    return f"Export of a {header.recipe or 'nameless'} app by {header.made_by or 'Mathison Data'}"


class _Counted:
    """The file itself: hashed and counted as it is read."""

    def __init__(self, file: BinaryIO, on_bytes: Callable[[int], None]) -> None:
        self.size_bytes = 0
        self._file = file
        self._on_bytes = on_bytes
        self._hash = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def read(self, size: int, /) -> bytes:
        piece = self._file.read(size)
        self._hash.update(piece)
        self.size_bytes += len(piece)
        self._on_bytes(self.size_bytes)
        return piece

    def drain(self) -> None:
        while self.read(PIECE_BYTES):
            pass


class _Content(io.RawIOBase):
    """A file without its compression, on its way to whoever looks at it; our seal and fingerprint are found on the way.

    Attributes:
        layers: of compression, from the outside in.
        fingerprint: of an archive of ours that is whole.
    """

    def __init__(self, file: Reader) -> None:
        super().__init__()
        self.layers: list[str] = []
        self.size_bytes = 0
        self.seal = SealReader()
        self.fingerprint: Fingerprint | None = None
        self._file = file
        self._finder = FingerprintFinder()

    def unpack(self) -> None:
        """What is read from now on is the content."""
        unpacked = UnpackedFile(self._file)
        self._file, self.layers = unpacked, unpacked.layers

    def find_fingerprint(self) -> None:
        """Once all was read."""
        self.fingerprint = self._finder.fingerprint()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # BufferedReader gives a memoryview
        piece = self._file.read(len(buffer))
        self.seal.add(piece)
        self._finder.add(piece)
        self.size_bytes += len(piece)
        buffer[: len(piece)] = piece
        return len(piece)


def _zip_of_many(file: BinaryIO, found: Findings, *, unpacks_one: bool) -> zipfile.ZipFile | None:
    """The file as a zip, unless it is none or holds a single file of a known kind, which is looked into instead.

    Args:
        unpacks_one: False: it is looked into as any other.
    """
    try:
        codec = codec_of(file.read(HEAD_BYTES))
        found.title = f"Compressed file ({codec})" if codec else ""
        if codec != "zip":
            return None
        require_one_end(file)
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as failure:
        raise ArchiveTruncatedError(
            "The zip is cut off or damaged: the list of its files is missing.",
            next_step="Take another copy of the file.",
        ) from failure
    finally:
        file.seek(0)
    files = [member for member in archive.infolist() if not member.is_dir()]
    is_of_one = unpacks_one and len(files) == 1 and not files[0].flag_bits & 1 and _is_to_look_into(archive, files[0])
    file.seek(0)
    return None if is_of_one else archive


def _is_to_look_into(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    """Whether a file in a zip is of a known kind; also when it does not unpack, since a look says why."""
    try:
        with archive.open(member) as opened:
            return is_known(PeekedFile(UnpackedFile(opened), head_bytes=HEAD_BYTES).head)
    except (ServiceError, *_ZIP_FAILURES, NotImplementedError):
        return True


def _look_at_zip(file: BinaryIO, archive: zipfile.ZipFile, found: Findings) -> None:
    found.kind, found.title = "zip", "Zip archive"
    members = [member for member in archive.infolist() if not member.is_dir()]
    found.counts["files"] = len(members)
    names = [name_of(member) for member in members]
    if guesses := [name.shown for name in names if name.is_guess]:
        found.evidence.append(
            f"It does not tell which encoding {len(guesses)} of its names are in, {guesses[0]!r} for one; an import "
            "takes them for those of DOS (cp437)."
        )
    try:
        if any(member.flag_bits & 1 for member in members):
            found.conclude("unknown", "It is encrypted, so its files cannot be checked.")
            return
        for member in members:
            with archive.open(member) as opened:
                while opened.read(PIECE_BYTES):
                    pass
    except NotImplementedError:
        found.conclude("unknown", f"{name_of(member).shown} is compressed in a way that cannot be checked here.")
        return
    except _ZIP_FAILURES as failure:
        raise ArchiveDamagedError(
            f"The zip is damaged: {name_of(member).shown} cannot be read.", next_step="Take another copy of the file."
        ) from failure
    finally:
        file.seek(0)
    found.conclude("plausible", "The list of its files is there and each file's CRC-32 agrees.")


def _check_sqlite(path: Path, found: Findings) -> None:
    """SQLite's own check of the database's structure. Values in it have no checksums."""
    try:
        # immutable: no lock and no -wal or -shm is made beside somebody's file.
        database = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1", uri=True)
        try:
            database.execute("PRAGMA trusted_schema = OFF")
            found.counts["tables"] = database.execute(
                "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
            ).fetchone()[0]
            verdict = quick_check(database)
        finally:
            database.close()
    except sqlite3.Error as failure:
        raise ArchiveDamagedError(f"The database is damaged: {failure}.") from failure
    found.evidence.clear()
    if verdict != "ok":
        raise ArchiveDamagedError(f"The database is damaged: {verdict.splitlines()[-1]}.")
    beside = path.with_name(path.name + "-wal")
    if beside.exists() and beside.stat().st_size:
        found.evidence.append(f"Its latest changes are in {beside.name} and not in it.")
    found.conclude("plausible", "SQLite's quick_check finds its structure sound.")
