"""The jailed child of `agent.engines.replay.n8n`: an archive on stdin, its files' fingerprint on stdout.

The database goes to a descriptor that it was given.
"""

from __future__ import annotations

import io
import os
import sys

from agent.archives.contents import ContentSum
from agent.archives.reading import TarReader
from agent.engines.n8n.folder import CLEAR_KEY, SEALED_KEY
from agent.jail import enter_from_argv
from common.codecs import UnpackedFile
from common.seals import RESERVED_DIRECTORY
from common.writing import write_all_at


def main() -> None:
    scheme, database, target = enter_from_argv()
    content = ContentSum(scheme, may_thread=False)
    archive = TarReader(UnpackedFile(io.FileIO(0, closefd=False)))
    for member in archive.members():
        if member.name.partition("/")[0] in (RESERVED_DIRECTORY, SEALED_KEY, CLEAR_KEY):
            continue
        if member.name == database:
            os.ftruncate(int(target), member.size)
            for offset, piece in archive.pieces(member):
                write_all_at(int(target), piece, offset)
            continue
        content.add_member(member, archive.pieces(member))
    sys.stdout.buffer.write(content.fingerprint().to_json())


if __name__ == "__main__":
    main()
