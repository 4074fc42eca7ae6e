"""The exit codes of `mathison`; docs/commands.md and `mathison --help` list the same."""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """One kind of failure each, so that a script can tell them apart."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    UNREACHABLE = 3
    NOT_PERMITTED = 4
    NOT_FOUND = 5
    ARCHIVE = 6
    APP = 7
    TRANSFER = 8
    LOCAL_FILE = 9
    DIFFERS = 10
    UNVERIFIABLE = 11
    INTERRUPTED = 130


EXIT_CODE_MEANINGS = {
    ExitCode.OK: "done, and checked",
    ExitCode.INTERNAL: "a fault in Mathison Data itself",
    ExitCode.USAGE: "wrong arguments, or --yes is missing where nobody can be asked",
    ExitCode.UNREACHABLE: "the controller cannot be reached",
    ExitCode.NOT_PERMITTED: "no token, an unknown one, or one that may not do this",
    ExitCode.NOT_FOUND: "no such app or transfer, or nothing kept to undo",
    ExitCode.ARCHIVE: "the archive is damaged, of another kind, too large or refused",
    ExitCode.APP: "the app or its agent is busy, unavailable or has no room",
    ExitCode.TRANSFER: "the transfer broke: no whole archive was received, or nothing was imported",
    ExitCode.LOCAL_FILE: "a file or disk of this machine: exists already, cannot be read, no space",
    ExitCode.DIFFERS: "the archive was replayed, and does not hold what its fingerprint says",
    ExitCode.UNVERIFIABLE: "the archive could not be replayed here, or carries no fingerprint",
    ExitCode.INTERRUPTED: "ended by Ctrl-C, a signal, or the answer no",
}
"""For `--help`; one line each."""
