"""The jailed child that unpacks an upload: an archive on stdin, files below a descriptor, a report on stdout.

As root it gives up everything but what restoring owners and modes needs: it is locked into the staging directory,
becomes nobody, and keeps four capabilities. Started by `agent.engines.tree`.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import BinaryIO

import msgspec

from agent import rights
from agent.archives.extracting import Extracted, Extraction, ExtractionLimits
from agent.archives.sealed_tar import SealedTar
from agent.archives.zips import ZipReader
from agent.jail import enter, parse_argv
from common.errors import LimitExceededError, ServiceError
from common.fingerprints import Fingerprint
from common.headers import ArchiveHeader
from common.readers import Reader


class Assignment(msgspec.Struct, kw_only=True):
    """What to unpack, where to, and how much of it; the child's only argument, as JSON.

    Attributes:
        root, later: inherited descriptors of the empty directory and of an empty file for notes.
        recipe: whose exports are taken; archives that name none are taken as well.
        owner: uid and gid for everything; None: as the archive says.
        default_owner: for what the archive names no owner for.
        inside: absolute path of the directory as the app sees it.
    """

    root: int
    later: int
    is_zip: bool
    recipe: str
    owner: tuple[int, int] | None
    default_owner: tuple[int, int]
    inside: str
    content_bytes: int
    entries: int
    free_bytes: int
    expansion_ratio: int


class Report(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What became of it: `reason` is empty on success, otherwise as in `common.errors`.

    Attributes:
        fingerprint: that an export of ours carries; nothing was compared with it.
        warnings: of how the archive was read.
    """

    reason: str = ""
    text: str = ""
    next_step: str = ""
    extracted: Extracted = msgspec.field(default_factory=Extracted)
    header: ArchiveHeader | None = None
    fingerprint: Fingerprint | None = None
    acls_skipped: int = 0
    warnings: list[str] = msgspec.field(default_factory=list)


def main() -> None:
    """Unpack stdin. Whatever the archive's fault, the exit status is 0 and the report says it."""
    jail, parent_pid, arguments = parse_argv(sys.argv[1:])
    assignment = msgspec.json.decode(arguments[0], type=Assignment)
    # zipfile looks it up for names that are not UTF-8, when nothing can be imported any more.
    "".encode("cp437")
    file = open(0, "rb", buffering=1 << 20, closefd=False)  # noqa: SIM115
    rights.lock_into(assignment.root)
    enter(jail, parent_pid=parent_pid)
    rights.keep(rights.CHOWN | rights.DAC_OVERRIDE | rights.FOWNER | rights.FSETID)
    os.umask(0o022)
    try:
        report = _unpack(file, assignment)
    except ServiceError as error:
        report = Report(reason=error.reason, text=error.text, next_step=error.next_step)
    except MemoryError:
        text = "The archive needs more memory to unpack than an import may use."
        report = Report(reason=LimitExceededError.reason, text=text)
    with open(1, "wb", closefd=False) as output:
        output.write(_to_json(report))


def report_of(output: bytes) -> Report:
    """The report from what the child printed; ValueError when it is none."""
    return msgspec.convert(json.loads(output), type=Report)


def _to_json(report: Report) -> bytes:
    # The standard library's: names may hold bytes that are no text.
    return json.dumps(msgspec.to_builtins(report)).encode()


def _unpack(file: BinaryIO, assignment: Assignment) -> Report:
    limits = ExtractionLimits(
        content_bytes=assignment.content_bytes, entries=assignment.entries, free_bytes=assignment.free_bytes
    )
    archive = tar = None
    if assignment.is_zip:
        archive = ZipReader(file, size=os.fstat(0).st_size, expansion_ratio=assignment.expansion_ratio)
        tar = archive.lone_tar()
    with (
        open(assignment.later, "w+b") as later,
        contextlib.closing(
            Extraction(
                assignment.root,
                limits=limits,
                later=later,
                owner=assignment.owner or (assignment.default_owner if archive and tar is None else None),
                default_owner=assignment.default_owner,
                inside=assignment.inside,
            )
        ) as extraction,
    ):
        report = Report(extracted=extraction.result)
        if archive and tar is None:
            for member in archive.members():
                extraction.add(member, archive.pieces(member))
        else:
            _unpack_tar(tar or file, extraction, report, assignment.recipe)
        report.warnings = archive.warnings() if archive else []
        extraction.finish()
    return report


def _unpack_tar(file: Reader, extraction: Extraction, report: Report, recipe: str) -> None:
    archive = SealedTar(file, recipe=recipe)
    for member in archive.members():
        if report.header is None and archive.header is not None:
            report.header = archive.header
            # Better said now than when the volume is full.
            extraction.require_room(report.header.counts.get("bytes", 0))
        extraction.add(member, archive.pieces(member))
    report.header = archive.header
    report.fingerprint = archive.fingerprint
    report.acls_skipped = archive.acls_skipped


if __name__ == "__main__":
    main()
