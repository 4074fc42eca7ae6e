"""The jailed child of `agent.unpacking`: compressed bytes on stdin, content on stdout, a report on stderr."""

from __future__ import annotations

import json
import os
import sys

from agent.jail import enter_from_argv
from common.codecs import UnpackedFile
from common.errors import ServiceError
from common.writing import write_all

_PIECE_BYTES = 1 << 20


class _Stdin:
    def read(self, size: int, /) -> bytes:
        return os.read(0, size)


def main() -> None:
    """Unpack stdin; exit status 0 and a report without a reason mean that all of it was whole."""
    arguments = enter_from_argv()
    try:
        content = UnpackedFile(_Stdin(), unpack_zip="unpack-zip" in arguments)
        while piece := content.read(_PIECE_BYTES):
            write_all(1, piece)
        report: dict[str, object] = {"layers": content.layers}
    except ServiceError as error:
        report = {"reason": error.reason, "text": error.text, "next_step": error.next_step}
    except MemoryError:
        text = "The archive needs more memory to unpack than an import may use."
        report = {"reason": "LIMIT_EXCEEDED", "text": text, "next_step": "Compress it with a smaller window."}
    print(json.dumps(report), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
