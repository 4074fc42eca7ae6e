"""The jailed child of `agent.engines.replay.volume`: an archive on stdin, its fingerprint or what is wrong on stdout.

Each member is put into a directory as an import does, by the same code, but without content: so what an import refuses
because of names and links is refused here too, and nothing of the content is kept.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import sys

import msgspec

from agent.archives.contents import ContentSum
from agent.archives.extracting import Extraction, ExtractionLimits
from agent.archives.sealed_tar import SealedTar
from agent.jail import enter_from_argv
from common.codecs import UnpackedFile
from common.errors import ServiceError
from common.fingerprints import Fingerprint

_RECIPE = "volume"


class Answer(msgspec.Struct, omit_defaults=True):
    """Either the fingerprint, or the reason, text and next step of an error."""

    fingerprint: Fingerprint | None = None
    reason: str = ""
    text: str = ""
    next_step: str = ""


def main() -> None:
    """Exit status 0 whatever the archive's fault: the answer says it."""
    scheme, root, most_entries = enter_from_argv()
    try:
        answer = Answer(_fingerprint(scheme, int(root), int(most_entries)))
    except ServiceError as error:
        answer = Answer(reason=error.reason, text=error.text, next_step=error.next_step)
    sys.stdout.buffer.write(msgspec.json.encode(answer))


def _fingerprint(scheme: str, root: int, most_entries: int) -> Fingerprint:
    content = ContentSum(scheme, may_thread=False)
    archive = SealedTar(UnpackedFile(io.FileIO(0, closefd=False)), recipe=_RECIPE)
    owner = (os.geteuid(), os.getegid())
    limits = ExtractionLimits(content_bytes=0, entries=most_entries, free_bytes=0)
    with (
        # Modes and times of directories, which `finish` would set.
        open(os.devnull, "wb") as later,
        contextlib.closing(
            Extraction(root, limits=limits, later=later, owner=owner, default_owner=owner, inside="/")
        ) as extraction,
    ):
        for member in archive.members():
            hollow = dataclasses.replace(member, size=0, segments=None, attributes={})
            if extraction.add(hollow, ()):
                content.add_member(member, archive.pieces(member))
    return content.fingerprint()


if __name__ == "__main__":
    main()
