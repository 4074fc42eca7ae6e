"""The jailed child of `agent.engines.replay.minio`: an archive on stdin, an answer on stdout. Memory stays flat."""

from __future__ import annotations

import hashlib
import io
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

import msgspec

from agent.archives.members import Kind, Member, path_of, printable
from agent.archives.reading import TarReader
from agent.engines.minio.drive import bucket_settings, contents, xlmeta
from agent.engines.minio.drive.comparing import ACCOUNTS
from agent.engines.minio.drive.layout import CONFIG, META, SEALED_MAGIC, SYSTEM, is_in_place, key_of, own_name
from agent.engines.minio.drive.sums import Sums
from agent.engines.minio.drive.tiers import Tiered
from agent.engines.minio.portable import checks
from agent.engines.minio.portable import form as portable
from agent.engines.minio.portable.lines import SUFFIX, read_lines
from agent.engines.minio.trees.census import numbers_of
from agent.engines.minio.trees.tally import SCHEME
from agent.jail import enter_from_argv
from common.codecs import UnpackedFile
from common.errors import ArchiveDamagedError, ArchiveRefusedError, ServiceError
from common.fingerprints import Fingerprint
from common.seals import RESERVED_DIRECTORY
from common.wording import counted

_NAMED = 5
_UNTOLD = (
    "The ETags of objects, and which version of a key is its latest: the fingerprint tells their times and content."
)
_Path = tuple[str, str, str, str]
"""Of a file of a part: bucket, object, data directory, name."""


class Answer(msgspec.Struct):
    """What was found.

    Attributes:
        fault: what does not hold together; empty: nothing.
        reason, next_step: of the error that it is.
        unproven: what could not be looked at; empty: nothing.
    """

    fingerprint: Fingerprint
    fault: str = ""
    unproven: str = ""
    reason: str = ArchiveDamagedError.reason
    next_step: str = ""


def main() -> None:
    """Exit status 0 whatever the archive's fault: the answer says it."""
    [scheme] = enter_from_argv()
    # What is imported late has to be there before.
    archive = _opened()
    try:
        answer = _of_drive(archive) if scheme == SCHEME else _of_objects(archive)
    except ServiceError as error:
        answer = Answer(Fingerprint(scheme=scheme), error.text, reason=error.reason, next_step=error.next_step)
    sys.stdout.buffer.write(msgspec.json.encode(answer))


def _opened() -> TarReader:
    """Stdin from its beginning; it is a file."""
    os.lseek(0, 0, os.SEEK_SET)
    return TarReader(UnpackedFile(io.FileIO(0, closefd=False)))


@dataclass
class _Part:
    """A file of a part: its size, and what its content is."""

    size: int
    digest: contents.Digest


class _Drive:
    """What was found on the way through an archive.

    Attributes:
        damaged: paths of objects that are not whole; `own_damaged`: what of the server's own files is not.
        unproven, own_unproven: versions and files of which it is not known; `sealed`: files that nothing here opens.
        tiered: versions whose content is not in it.
        strange: members that are no part of a drive's data.
        accounts: how many users and the like there are, by the kinds of ACCOUNTS.
        doubtful: files whose blocks are to be compared with MinIO's own sums, with the block's size.
    """

    def __init__(self) -> None:
        self.sums = Sums(SCHEME)
        self.damaged: set[str] = set()
        self.own_damaged: set[str] = set()
        self.unproven = self.own_unproven = self.sealed = 0
        self.tiered = Tiered()
        self.strange: set[str] = set()
        self.accounts = dict.fromkeys(ACCOUNTS, 0)
        self.doubtful: dict[_Path, int] = {}
        self.settings: dict[str, str] = {}
        self._parts: dict[tuple[str, str], dict[_Path, _Part]] = {}
        self._budget = contents.Budget()
        self._own_budget = contents.own_budget()

    def add_part(self, path: _Path, part: _Part) -> None:
        """A file; those of an object come shortly before its xl.meta, versions of which may share them."""
        self._parts.setdefault(path[:2], {})[path] = part

    def forget_parts(self, bucket: str, directory: str) -> None:
        """Those of an object whose xl.meta was added."""
        self._parts.pop((bucket, directory), None)

    def add_own(self, directory: str, content: bytes) -> None:
        """An xl.meta of the server's own, which may be sealed."""
        bucket = bucket_settings.bucket_of(f"{SYSTEM}/{directory}/{META}")
        for kind, (parent, file) in ACCOUNTS.items():
            self.accounts[kind] += PurePosixPath(SYSTEM, directory).match(f"{CONFIG}/iam/{parent}/*/{file}")
        if content.startswith(SEALED_MAGIC):
            self.sealed += 1
            if bucket:
                self.settings[bucket] = bucket_settings.WITH_KEYS
            return
        name = own_name(f"{SYSTEM}/{directory}")
        try:
            meta = xlmeta.read(content)
        except ValueError:
            self.own_damaged.add(name)
            return
        if bucket:
            self.settings[bucket] = bucket_settings.told(meta)
        proofs = [self._proof_of(version, meta, (SYSTEM, directory), is_own=True) for version in meta.versions]
        self.own_unproven += proofs.count(contents.Proof.UNKNOWN)
        if contents.Proof.DAMAGED in proofs or not meta.is_intact:
            self.own_damaged.add(name)
            return
        try:
            xlmeta.require_one(content)
            if bucket and meta.versions[0].is_inline:
                bucket_settings.strictly(contents.newest_inline(meta), bucket=bucket)
        except ValueError as failure:
            self.own_damaged.add(f"{name} ({failure})")

    def fingerprint(self) -> Fingerprint:
        """Of all that was found."""
        for name, found in self.sums.buckets.items():
            found.settings = self.settings.get(name, bucket_settings.NONE)
        return self.sums.fingerprint(self.tiered.parts())

    def add_object(self, bucket: str, directory: str, content: bytes) -> None:
        """An xl.meta."""
        try:
            meta = xlmeta.read(content)
        except ValueError:
            self.damaged.add(f"{bucket}/{directory}")
            return
        if not meta.is_intact:
            self.damaged.add(f"{bucket}/{directory}")
        for version, number in zip(meta.versions, numbers_of(bucket, key_of(directory), meta.versions), strict=True):
            self.sums.add(bucket, number, version.size)
            self.tiered.add(bucket, key_of(directory), version)
            proof = self._proof_of(version, meta, (bucket, directory))
            self.unproven += proof is contents.Proof.UNKNOWN
            if proof is contents.Proof.DAMAGED:
                self.damaged.add(f"{bucket}/{directory}")

    def _proof_of(
        self, version: xlmeta.Version, meta: xlmeta.ObjectMeta, directory: tuple[str, str], *, is_own: bool = False
    ) -> contents.Proof:
        budget = self._own_budget if is_own else self._budget
        if version.is_read_otherwise:
            return contents.Proof.DAMAGED
        if version.is_inline:
            return contents.inline_proof(version, meta.inline, budget, is_own=is_own)
        return self._of_parts(version, (*directory, version.data_directory), budget, is_own=is_own)

    def _of_parts(
        self, version: xlmeta.Version, directory: tuple[str, str, str], budget: contents.Budget, *, is_own: bool
    ) -> contents.Proof:
        paths = {(*directory, f"part.{number}"): size for number, size in version.parts}
        of_object = self._parts.get(directory[:2], {})
        parts = [of_object.get(path) for path in paths]
        found = [part for part in parts if part is not None]
        if len(found) < len(parts):
            return contents.Proof.DAMAGED
        for part, size in zip(found, paths.values(), strict=True):
            is_cut = part.size < size
            if is_cut or (version.block_bytes and part.size != contents.kept_bytes(size, version.block_bytes)):
                return contents.Proof.DAMAGED
        proof = contents.Proof.UNKNOWN
        if not paths or (version.block_bytes == contents.BLOCK_BYTES and not is_own):
            proof = contents.by_etag(version, [part.digest.digest() for part in found])
        if proof is contents.Proof.WHOLE or not paths or not budget.take(proof, version):
            return proof
        self.doubtful |= dict.fromkeys(paths, version.block_bytes)
        return contents.Proof.WHOLE


def _of_drive(archive: TarReader) -> Answer:
    drive = _Drive()
    for bucket, path, member in _members(archive):
        directory, _, name = path.rpartition("/")
        is_directory = member.kind is Kind.DIRECTORY
        is_either = is_directory or member.kind is Kind.FILE
        if not is_either or not is_in_place(f"{bucket}/{path}".rstrip("/"), is_directory=is_directory):
            drive.strange.add(member.name)
        elif not path and bucket != SYSTEM:
            drive.sums.bucket(bucket)
        elif member.kind is not Kind.FILE:
            continue
        elif name == META:
            content = b"".join(piece for _, piece in archive.pieces(member))
            if bucket == SYSTEM:
                drive.add_own(directory, content)
            else:
                drive.add_object(bucket, directory, content)
            drive.forget_parts(bucket, directory)
        elif name.startswith("part."):
            digest = contents.Digest()
            for _, piece in archive.pieces(member):
                digest.add(piece)
            drive.add_part(_part_path(bucket, directory, name), _Part(member.size, digest))
    for bucket, directory in _differing(drive.doubtful) if drive.doubtful else ():
        if bucket == SYSTEM:
            drive.own_damaged.add(own_name(f"{bucket}/{directory}"))
        else:
            drive.damaged.add(f"{bucket}/{directory}")
    damaged = [*map(printable, sorted(drive.damaged)[:_NAMED]), *sorted(drive.own_damaged)[:_NAMED]]
    faults = [
        f"The archive does not hold all of these as they were stored: {', '.join(damaged)}." if damaged else "",
        f"{', '.join(map(printable, sorted(drive.strange)[:_NAMED]))} does not belong there." if drive.strange else "",
    ]
    unproven = [
        f"{drive.tiered.text('this archive')}." if drive.tiered.versions else "",
        contents.unproven_text(drive.unproven) if drive.unproven else "",
        contents.unproven_own_text(sealed=drive.sealed, others=drive.own_unproven),
        _uncounted_text(drive.accounts),
    ]
    return Answer(drive.fingerprint(), " ".join(filter(None, faults)), " ".join(filter(None, unproven)))


def _uncounted_text(accounts: Mapping[str, int]) -> str:
    told = [counted(number, kind.replace("_", " ")) for kind, number in accounts.items()]
    return (
        "Whether all users, policies and the configuration are in it: the fingerprint is of buckets. "
        f"There are {', '.join(told[:-1])} and {told[-1]}."
    )


def _differing(doubtful: dict[_Path, int]) -> set[tuple[str, str]]:
    """Bucket and directory of what has a block that is not what MinIO's sum says; a second way through the archive."""
    found = set()
    archive = _opened()
    for bucket, path, member in _members(archive):
        directory, _, name = path.rpartition("/")
        part = _part_path(bucket, directory, name)
        if (block_bytes := doubtful.get(part)) is not None:
            sums = contents.Sums(block_bytes)
            for _, piece in archive.pieces(member):
                sums.add(piece)
            if not sums.is_whole():
                found.add(part[:2])
    return found


def _part_path(bucket: str, directory: str, name: str) -> _Path:
    of_object, _, data_directory = directory.rpartition("/")
    return bucket, of_object, data_directory, name


class _Objects:
    """What was found on the way through a portable archive."""

    def __init__(self, archive: TarReader) -> None:
        self._archive = archive
        self._sums = Sums(portable.SCHEME)
        self._names: set[tuple[str, str]] = set()
        self._promised = self._held = 0

    def meet(self, member: Member) -> None:
        """One entry.

        Raises:
            ArchiveRefusedError: no export has such.
            ArchiveDamagedError: as `lines.read_lines`.
        """
        if member.kind in (Kind.SYMLINK, Kind.HARD_LINK):
            raise ArchiveRefusedError(checks.LINKS)
        path = path_of(member.name)
        if len(path) < 2 or path[0] not in portable.DIRECTORIES:
            return
        top, name, *below = path
        is_file = member.kind is Kind.FILE
        if top == portable.METADATA and name.endswith(SUFFIX):
            if not is_file or below:
                # Not the lines that `require_buckets` looks for.
                return
            self._add_lines(member, name.removesuffix(SUFFIX))
        elif top == portable.SETTINGS and is_file and len(below) == 1:
            self._sums.add_setting(name, below[0], self._sha256_of(member))
        elif top in (portable.BUCKETS, portable.VERSIONS) and is_file:
            self._held += portable.number_of_content("/".join(path), member.size, self._sha256_of(member))
        self._names.add((top, name))

    def answer(self) -> Answer:
        """All entries were met; raises as `checks.require_buckets`."""
        for bucket in checks.require_buckets(self._names):
            self._sums.bucket(bucket)
        is_held = self._promised == self._held
        fault = "" if is_held else "The content of objects in the archive is not what its metadata says."
        return Answer(self._sums.fingerprint(), fault, _UNTOLD)

    def _add_lines(self, member: Member, bucket: str) -> None:
        if (portable.METADATA, f"{bucket}{SUFFIX}") in self._names:
            raise ArchiveRefusedError(f"The archive holds {printable(member.name)} twice.")
        for line in read_lines((piece for _, piece in self._archive.pieces(member)), bucket):
            self._sums.add(bucket, portable.number_of_line(bucket, line), line.size)
            if not line.is_marker:
                self._promised += portable.number_of_content(line.file, line.size, line.sha256)

    def _sha256_of(self, member: Member) -> str:
        digest = hashlib.sha256()
        for _, piece in self._archive.pieces(member):
            digest.update(piece)
        return digest.hexdigest()


def _of_objects(archive: TarReader) -> Answer:
    found = _Objects(archive)
    for member in archive.members():
        found.meet(member)
    return found.answer()


def _members(archive: TarReader) -> Iterator[tuple[str, str, Member]]:
    """Members by the first name of their path, without ours."""
    for member in archive.members():
        bucket, _, path = member.name.partition("/")
        if bucket != RESERVED_DIRECTORY:
            yield bucket, path, member


if __name__ == "__main__":
    main()
