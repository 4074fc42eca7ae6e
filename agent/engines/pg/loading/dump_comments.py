"""What pg_dump says in the comments of its SQL text.

Imports little: it runs in a child that has to stay small.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from agent.engines.pg.server.text_errors import TextError

_ENTRY = re.compile(rb"-- (?:Data for )?Name: (.*); Type: ([^;]*); Schema: .*; Owner: ?")
_SOURCE = re.compile(rb"-- Dumped from database version (.{1,200})")
_DUMPER = re.compile(rb"-- Dumped by pg_dump version (.{1,200})")


class Entry(NamedTuple):
    """One of pg_dump's entries: what a comment like `-- Name: a; Type: TABLE; Schema: public; Owner: -` announces."""

    name: bytes
    kind: str


@dataclass
class DumpFacts:
    """What the comments say about the dump.

    Attributes:
        entry: the one that was announced last.
        has_opening: the text begins as pg_dump's files do.
        has_closing: it ends as they do; whoever reads a statement sets this back.
        had_closing: a line that ends such a file was there.
    """

    source_version: str = ""
    dumper_version: str = ""
    entry: Entry | None = None
    has_opening: bool = False
    has_closing: bool = False
    had_closing: bool = False

    def add(self, comment: bytes) -> None:
        """A comment of one line, from its dashes to before its end of line.

        Raises:
            TextError: the dump is one of a whole server.
        """
        if entry := _ENTRY.match(comment):
            self.entry = Entry(entry[1], entry[2].decode("ascii", "replace"))
        elif comment == b"-- PostgreSQL database dump":
            self.has_opening = True
        elif comment == b"-- PostgreSQL database dump complete":
            self.has_closing = self.had_closing = True
        elif comment == b"-- PostgreSQL database cluster dump":
            raise TextError(
                "ARCHIVE_WRONG_KIND",
                "This is a dump of a whole server, as pg_dumpall makes it.",
                next_step="Make a `pg_dump` of one database.",
            )
        elif said := _SOURCE.match(comment):
            self.source_version = said[1].decode(errors="replace")
        elif said := _DUMPER.match(comment):
            self.dumper_version = said[1].decode(errors="replace")

    def require_whole(self, *, is_between_statements: bool) -> None:
        """The text has ended.

        Raises:
            TextError: it is cut off, something was added, or nobody can tell.
        """
        if is_between_statements and self.has_closing:
            return
        if not self.has_opening and (is_between_statements or not self.had_closing):
            raise TextError(
                "ARCHIVE_WRONG_KIND",
                "The file is text, but not a dump: it has neither the first nor the last line that pg_dump writes, "
                "so nobody can tell whether it is whole.",
                next_step="Make the dump with pg_dump.",
            )
        if self.had_closing:
            raise TextError(
                "ARCHIVE_DAMAGED",
                "The file goes on after the line 'PostgreSQL database dump complete', and does not end with it.",
                next_step="Take away what was added, or make the dump again.",
            )
        raise TextError(
            "ARCHIVE_TRUNCATED",
            "The file is cut off: its last line 'PostgreSQL database dump complete' is missing.",
            next_step="Send the whole file, or make the dump again.",
        )
