"""The jailed child of `agent.engines.replay.volume`: an archive on stdin, its fingerprint on stdout."""

from __future__ import annotations

import io
import sys

from agent.archives.contents import ContentSum
from agent.archives.reading import TarReader
from agent.jail import enter_from_argv
from common.codecs import UnpackedFile
from common.seals import RESERVED_DIRECTORY


def main() -> None:
    [scheme] = enter_from_argv()
    content = ContentSum(scheme, may_thread=False)
    archive = TarReader(UnpackedFile(io.FileIO(0, closefd=False)))
    for member in archive.members():
        if member.name.partition("/")[0] == RESERVED_DIRECTORY:
            continue
        content.add_member(member, archive.pieces(member))
    sys.stdout.buffer.write(content.fingerprint().to_json())


if __name__ == "__main__":
    main()
