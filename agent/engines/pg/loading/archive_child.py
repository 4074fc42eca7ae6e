"""The jailed child that reads an uploaded archive's structure: the archive on stdin, reports as lines on stdout.

Its argument is the kind of archive. `custom` takes a stream and passes on to stdout what it has checked; its report
goes to stderr. `tar` reads a file that lies on stdin; `directory` takes a stream, a tar of a dump in directory format,
and passes the dump's files on: a line with a name and size, then pieces, each behind a line with its size; whatever
else is in the tar is passed over. `zip` does so with a zip that lies on stdin. The last line says `done` or `failed`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict

from agent.archives.members import Kind, Member, printable
from agent.archives.reading import TarReader
from agent.archives.zips import ZipReader
from agent.jail import enter_from_argv
from common.errors import (
    ArchiveDamagedError,
    ArchiveRefusedError,
    ArchiveWrongKindError,
    LimitExceededError,
    ServiceError,
)
from common.pg_archives import DUMP_FILE, TAR, Contents, check_custom, read_contents, require_files
from common.readers import Reader
from common.writing import write_all

TOC = "toc.dat"


class _Stdin:
    def read(self, size: int, /) -> bytes:
        return os.read(0, size)


class _Passed:
    """Stdin, of which each piece goes to stdout once it was looked at and the next is wanted.

    Who reads there may have had enough before the end; the rest is only looked at.
    """

    def __init__(self) -> None:
        self._piece = b""
        self._has_reader = True

    def read(self, size: int, /) -> bytes:
        if self._has_reader:
            try:
                write_all(1, self._piece)
            except BrokenPipeError:
                self._has_reader = False
        self._piece = os.read(0, size)
        return self._piece


class _Pieces:
    """Pieces of a member as a file."""

    def __init__(self, pieces: Iterator[tuple[int, bytes]]) -> None:
        self._pieces = pieces

    def read(self, _size: int, /) -> bytes:
        return next(self._pieces, (0, b""))[1]


def main() -> None:
    """Read stdin. Whatever the archive's fault, the exit status is 0 and the last line says it."""
    # zipfile looks it up for names that are not UTF-8, when nothing can be imported any more.
    "".encode("cp437")
    kind, most_members, *more = enter_from_argv()
    output = 2 if kind == "custom" else 1
    try:
        match kind:
            case "custom":
                check_custom(_Passed())
                _say({"done": {}}, output)
            case "tar":
                _say({"done": _facts(check_tar(_Stdin(), most_members=int(most_members)))})
            case "contents":
                _say({"done": _facts(read_contents(_Stdin()))})
            case "directory":
                pass_directory_on(TarReader(_Stdin()), most_members=int(most_members), packing="tar")
                _say({"done": {}})
            case "zip":
                file = open(0, "rb", closefd=False)  # noqa: SIM115
                archive = ZipReader(file, size=os.fstat(0).st_size, expansion_ratio=int(more[0]))
                pass_directory_on(archive, most_members=int(most_members), packing="zip")
                _say({"done": {}})
    except ServiceError as error:
        _say({"failed": {"reason": error.reason, "text": error.text, "next_step": error.next_step}}, output)
    except MemoryError:
        text = "The archive needs more memory to read than an import may use."
        _say({"failed": {"reason": LimitExceededError.reason, "text": text, "next_step": ""}}, output)


def check_tar(file: Reader, *, most_members: int) -> Contents:
    """Read a dump in pg_dump's tar format to its end: every member whole, every table's file there.

    Raises:
        ArchiveError (its subclasses): it is not that.
    """
    archive = TarReader(file)
    contents: Contents | None = None
    names = set()
    for member in _limited(archive.members(), most_members):
        if contents is None:
            if member.name != TOC:
                raise ArchiveWrongKindError("The tar is no dump: it does not begin with toc.dat.")
            contents = read_contents(_Pieces(archive.pieces(member)))
        names.add(member.name)
    if contents is None:
        raise ArchiveWrongKindError("The tar is empty.")
    if contents.format != TAR:
        raise ArchiveDamagedError("The archive is damaged: toc.dat is not of the tar format.")
    require_files(contents.data.values(), names)
    return contents


def pass_directory_on(archive: TarReader | ZipReader, *, most_members: int, packing: str) -> None:
    """Write the files of a dump in directory format to stdout.

    Args:
        packing: "tar" or "zip".
    Raises:
        ArchiveError (its subclasses): it is damaged, or holds no dump, or two.
    """
    folder: str | None = None
    has_contents = False
    for member in _limited(archive.members(), most_members):
        where, _, name = member.name.rpartition("/")
        if member.kind is Kind.DIRECTORY or not DUMP_FILE.fullmatch(name):
            continue
        if member.kind is not Kind.FILE or member.segments is not None:
            raise ArchiveRefusedError(f"The {packing} has {printable(member.name)} as a {member.kind.value}.")
        if folder not in (None, where):
            raise ArchiveRefusedError(f"The {packing} holds more than one dump.", next_step="Pack one dump alone.")
        folder = where
        has_contents |= name == TOC
        _say({"name": name, "size": member.size})
        for _, piece in archive.pieces(member):
            # Each with its size, so that a report can stand where the tar breaks off.
            _say({"bytes": len(piece)})
            write_all(1, piece)
    if not has_contents:
        raise ArchiveWrongKindError(
            f"The {packing} holds no PostgreSQL dump in directory format: there is no toc.dat in it.",
            next_step="Upload the file that pg_dump wrote, or pack the directory that pg_dump -Fd made.",
        )


def _limited(members: Iterator[Member], most: int) -> Iterator[Member]:
    for number, member in enumerate(members):
        if number >= most:
            raise LimitExceededError(f"The archive holds more than the limit of {most} entries.")
        yield member


def _facts(contents: Contents) -> dict[str, object]:
    return {**asdict(contents), "data": sorted(set(contents.data.values()) - {""})}


def _say(report: dict[str, object], output: int = 1) -> None:
    write_all(output, json.dumps(report).encode() + b"\n")


if __name__ == "__main__":
    main()
