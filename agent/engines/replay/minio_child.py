"""The jailed child of `agent.engines.replay.minio`: an archive on stdin, an answer on stdout. Memory stays flat."""

from __future__ import annotations

import hashlib
import io
import sys
from collections.abc import Iterator

import msgspec

from agent.archives.members import Kind, Member, printable
from agent.archives.reading import TarReader
from agent.engines.minio import portable, xlmeta
from agent.engines.minio.census import SCHEME, numbers_of
from agent.engines.minio.layout import META, SYSTEM, is_bucket_name, key_of
from agent.engines.minio.sums import Sums
from agent.jail import enter_from_argv
from common.codecs import UnpackedFile
from common.fingerprints import Fingerprint
from common.seals import RESERVED_DIRECTORY

_NAMED = 5


class Answer(msgspec.Struct):
    """What was found.

    Attributes:
        fault: what does not hold together; empty: nothing.
    """

    fingerprint: Fingerprint
    fault: str = ""


def main() -> None:
    [scheme] = enter_from_argv()
    # What is imported late has to be there before.
    archive = TarReader(UnpackedFile(io.FileIO(0, closefd=False)))
    answer = _of_drive(archive) if scheme == SCHEME else _of_objects(archive)
    sys.stdout.buffer.write(msgspec.json.encode(answer))


class _Parts:
    """Which files of parts are there, and which an xl.meta names; those of an object come shortly before it."""

    def __init__(self) -> None:
        self._there: dict[tuple[str, ...], int] = {}
        self._awaited: dict[tuple[str, ...], int] = {}

    def add(self, path: tuple[str, ...], size: int) -> None:
        """A file."""
        if path not in self._awaited:
            self._there[path] = size
        elif size >= self._awaited[path]:
            del self._awaited[path]

    def need(self, path: tuple[str, ...], size: int) -> None:
        """One that is named, and holds at least so much."""
        if self._there.pop(path, -1) < size:
            self._awaited[path] = size

    def missing(self) -> list[str]:
        """Objects with a part that never came, or is cut; the first of them."""
        return sorted({"/".join(path[:2]) for path in self._awaited})[:_NAMED]


def _of_drive(archive: TarReader) -> Answer:
    sums, parts = Sums(SCHEME), _Parts()
    damaged: list[str] = []
    for bucket, path, member in _below_buckets(archive):
        directory, _, name = path.rpartition("/")
        if not path:
            sums.bucket(bucket)
        elif member.kind is not Kind.FILE:
            continue
        elif name == META:
            try:
                versions = xlmeta.read(b"".join(piece for _, piece in archive.pieces(member))).versions
            except ValueError:
                damaged.append(f"{bucket}/{directory}")
                continue
            for version, number in zip(versions, numbers_of(bucket, key_of(directory), versions), strict=True):
                sums.add(bucket, number, version.size)
                for part, size in version.parts:
                    parts.need((bucket, directory, version.data_directory, f"part.{part}"), size)
        elif name.startswith("part."):
            of_object, _, data_directory = directory.rpartition("/")
            parts.add((bucket, of_object, data_directory, name), member.size)
    names = ", ".join(printable(name) for name in [*parts.missing(), *damaged][:_NAMED])
    return Answer(sums.fingerprint(), f"The archive does not hold all of these objects: {names}." if names else "")


def _of_objects(archive: TarReader) -> Answer:
    sums = Sums(portable.SCHEME)
    promised = held = 0
    for member in archive.members():
        top, _, rest = member.name.partition("/")
        if top == portable.BUCKETS and member.kind is Kind.DIRECTORY and is_bucket_name(rest.rstrip("/")):
            sums.bucket(rest.rstrip("/"))
        elif top in (portable.BUCKETS, portable.VERSIONS) and member.kind is Kind.FILE:
            digest = hashlib.sha256()
            for _, piece in archive.pieces(member):
                digest.update(piece)
            held += portable.number_of_content(member.name, member.size, digest.hexdigest())
        elif top == portable.METADATA and member.kind is Kind.FILE:
            bucket = rest.removesuffix(".jsonl")
            for line in _lines(archive, member):
                sums.add(bucket, portable.number_of_line(bucket, line), line.size)
                if not line.is_marker:
                    promised += portable.number_of_content(line.file, line.size, line.sha256)
    fault = "" if promised == held else "The content of objects in the archive is not what its metadata says."
    return Answer(sums.fingerprint(), fault)


def _below_buckets(archive: TarReader) -> Iterator[tuple[str, str, Member]]:
    for member in archive.members():
        bucket, _, path = member.name.partition("/")
        if bucket not in (RESERVED_DIRECTORY, SYSTEM) and is_bucket_name(bucket):
            yield bucket, path, member


def _lines(archive: TarReader, member: Member) -> Iterator[portable.Line]:
    held = b""
    for _, piece in archive.pieces(member):
        *whole, held = (held + piece).split(b"\n")
        for line in whole:
            yield msgspec.json.decode(line, type=portable.Line)


if __name__ == "__main__":
    main()
