"""The jailed child that reads an uploaded dump: SQL on stdin, on stdout what an import carries out of it.

Its arguments are the most bytes that the server takes in one statement, 1 where the server tells no names of tables
apart by their case, or 0, and the version that it says it is. Given the name of the schema that the dump is loaded
into, too, it lets views, triggers, routines and events through as well, after all else: a trigger of the file's would
run with each row, without an end if it says so.
Its last line on stderr is a report in JSON. Whatever the file's fault, the exit status is 0 and the report says it;
what was printed before may have been loaded, into a schema that is dropped then.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import replace
from io import BufferedIOBase
from typing import BinaryIO

from agent.archives.members import printable
from agent.engines.mariadb.dumps import definitions, foreign, fulltext, own_tables, packets, sql_modes
from agent.engines.mariadb.dumps.definitions import Schemas
from agent.engines.mariadb.dumps.exact_rows import ExactRows
from agent.engines.mariadb.dumps.foreign import DUMP_AGAIN
from agent.engines.mariadb.dumps.inserts import Batches
from agent.engines.mariadb.dumps.made_names import MadeNames
from agent.engines.mariadb.dumps.partitions import Partitions
from agent.engines.mariadb.dumps.releases import Release
from agent.engines.mariadb.dumps.row_memory import RowMemory
from agent.engines.mariadb.dumps.sequence_texts import SequencePositions
from agent.engines.mariadb.dumps.sql_modes import SqlModes
from agent.engines.mariadb.dumps.sqltext import CutTextError, Splitter, SqlTextError, Statement
from agent.engines.mariadb.dumps.statements import RefusedError, Way, decide_all
from agent.jail import enter_from_argv
from common.errors import (
    ArchiveIncompatibleError,
    ArchiveRefusedError,
    ArchiveTruncatedError,
    ArchiveWrongKindError,
    ServiceError,
)
from common.seals import SealReader
from common.wording import some_of

_PIECE_BYTES = 1 << 20
_OPENING_BYTES = 64 << 10
"""In which a dump says where it comes from: a header of ours, then comments."""
_MAX_LATER_BYTES = 64 << 20
"""Most text that is held back: of definitions, written as digits, and the settings between them."""
_ORIGIN = re.compile(rb"^-- Host: .*    Database: (\S(?:.*\S)?)\s*$", re.MULTILINE)
_WORDS_NAMED, _WORDS_CHARACTERS, _WORDS_KEPT = 5, 60, 1000
"""Of what is left out of tables, for a person."""
_END = b"-- Dump completed"
_HISTORY = re.compile(rb"\bsystem_versioning_insert_history\s*=\s*(?:1|ON)\b", re.IGNORECASE)
_SERVER = re.compile(rb"^-- Server version\t(\S{1,80})", re.MULTILINE)


def main() -> None:
    """Filter stdin."""
    most_bytes, folds_case, version, *schemas = enter_from_argv()
    try:
        with open(0, "rb", closefd=False) as source, open(1, "wb", closefd=False) as target:
            report = judged(
                source,
                target,
                most_bytes=int(most_bytes),
                new_schema=(schemas or [""])[0],
                folds_case=folds_case == "1",
                release=Release.of(version),
            )
    except BrokenPipeError:
        # Who reads has ended and says why.
        report = {"stopped": 1}
        # What is still buffered cannot go anywhere, and Python would complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    print(json.dumps(report), file=sys.stderr, flush=True)


def judged(
    source: BufferedIOBase,
    target: BinaryIO,
    *,
    most_bytes: int,
    new_schema: str,
    release: Release,
    folds_case: bool = False,
) -> dict[str, str | int]:
    """The report on a dump, what may be carried out of it written."""
    schemas = Schemas("", new_schema, release.is_mysql) if new_schema else None
    try:
        return _filter(
            source,
            target,
            most_bytes=most_bytes,
            schemas=schemas,
            names=MadeNames(folds_case=folds_case),
            release=release,
        )
    except RefusedError as refused:
        return {"reason": refused.reason, "text": refused.text, "next_step": refused.next_step}
    except CutTextError as cut:
        return _report(ArchiveTruncatedError(f"The file is cut off: {cut}.", next_step="Send the whole file."))
    except SqlTextError as odd:
        return _report(ArchiveRefusedError(f"The file is no dump that an import takes: {odd}."))
    except ServiceError as error:
        return _report(error)
    except MemoryError:
        return _report(ArchiveRefusedError("The file has a statement that is too long."))


def _filter(
    source: BufferedIOBase,
    target: BinaryIO,
    *,
    most_bytes: int,
    schemas: Schemas | None,
    names: MadeNames,
    release: Release,
) -> dict[str, str | int]:
    splitter, seal, positions, batches = Splitter(), SealReader(), SequencePositions(), Batches(most_bytes)
    exact, memory, modes, partitions = ExactRows(), RowMemory(most_bytes), SqlModes(), Partitions()
    opening = server = b""
    statements = events = 0
    has_history = has_statement = False
    later, whole = bytearray(), 0
    modes_left_out: set[str] = set()
    words_left_out: dict[str, int] = {}

    def send(texts: Iterable[bytes]) -> None:
        for text in texts:
            # Not as one: it may be long.
            target.write(text)
            target.write(b";\n")

    def pass_on(statement: Statement) -> None:
        nonlocal statements, events, has_history, has_statement, whole
        has_statement = True
        for way, text in decide_all(statement, schemas, release):
            if way is Way.SKIP:
                continue
            if len(text) >= most_bytes:
                raise packets.too_long(statement.line, len(text), most_bytes)
            statements += 1
            events += way is Way.LATER and definitions.makes_event(statement.text)
            has_history = has_history or (way is Way.SET and _HISTORY.search(text) is not None)
            if way is not Way.SET:
                # Views and programs are sent as digits.
                is_shown = way is Way.RUN or text.startswith(b"DROP ")
                names.check(text if is_shown else statement.text, statement.line)
            if way is Way.SET:
                modes.set(text)
                text, left_out = sql_modes.without_granted(text, is_mysql=release.is_mysql)
                modes_left_out.update(mode.decode() for mode in left_out)
                send(exact.set(text))
            if way is Way.RUN:
                modes.require_usual(statement.line)
                partitions.check(text, statement.line)
                fulltext.check(text, statement.line)
                memory.check(text, statement.line)
                if own_tables.makes_table(text) and len(words_left_out) < _WORDS_KEPT:
                    for words in release.left_out(statement.text):
                        told = printable(words.decode("utf-8", "surrogateescape")[:_WORDS_CHARACTERS])
                        words_left_out.setdefault(told, statement.line)
                for part in batches.of(text):
                    send(positions.corrected(sent) for sent in exact.of(part, statement.line))
            if way is not Way.RUN and schemas:
                later.extend(text + b";\n")
                # Settings after the last of them are for nothing.
                whole = len(later) if way is Way.LATER else whole
            if len(later) > _MAX_LATER_BYTES:
                raise ArchiveIncompatibleError(
                    f"The file has definitions and settings of more than {_MAX_LATER_BYTES >> 20} MiB.",
                    next_step="Leave out views, triggers, routines or events at its source, then dump again.",
                )

    # What is there, so that the server works while the upload arrives.
    while piece := source.read1(_PIECE_BYTES):
        seal.add(piece)
        if seal.header is not None:
            seal.header.require_importable("mariadb")
        if len(opening) < _OPENING_BYTES:
            opening = (opening + piece)[:_OPENING_BYTES]
            # A line counts when its end has come.
            said_so_far = opening[: opening.rfind(b"\n") + 1]
            if version := _SERVER.search(said_so_far):
                server = version[1]
            if schemas and (found := _ORIGIN.search(said_so_far)):
                schemas = replace(schemas, source=found[1].decode("utf-8", "replace"))
        for statement in splitter.add(piece):
            pass_on(statement)
        target.flush()
    try:
        for statement in splitter.finish():
            pass_on(statement)
    except CutTextError:
        if splitter.unended and splitter.is_after_comment and _has_last_line(seal, splitter):
            # Nothing is cut off, since a comment follows: it may be no statement at all.
            decide_all(splitter.unended, schemas, release)
        if not (has_statement or seal.header or foreign.begins_as_dump(opening)):
            raise _no_dump() from None
        raise
    seal.finish()
    if not statements and not splitter.last_comment:
        raise _no_dump()
    if not _has_last_line(seal, splitter):
        raise _without_last_line(opening)
    target.write(exact.finish())
    target.write(later[:whole])
    target.flush()
    header = seal.header.to_json().decode() if seal.header else ""
    said = server.decode("utf-8", "replace")
    return {
        **names.counts,
        "statements": statements,
        "events": events,
        "has_history": has_history,
        "header": header,
        "server": said,
        "modes_left_out": ", ".join(sorted(modes_left_out)) if whole else "",
        "words_left_out": some_of([f"{words} (line {line})" for words, line in words_left_out.items()], _WORDS_NAMED),
    }


def _no_dump() -> ArchiveWrongKindError:
    return ArchiveWrongKindError("The file is no SQL dump of tables.", next_step=DUMP_AGAIN)


def _without_last_line(opening: bytes) -> ArchiveTruncatedError:
    if foreign.says_who_dumped(opening):
        return ArchiveTruncatedError(
            "The file is cut off: its last line 'Dump completed' is missing.", next_step="Send the whole file."
        )
    return ArchiveTruncatedError(
        "Whether the file is whole cannot be told: it does not begin as those of mariadb-dump and mysqldump do, and "
        "lacks the last line 'Dump completed' with which they end.",
        next_step="Make a dump with one of them, without --skip-comments and --compact; or, if you know that this file "
        f"is whole, say so with a last line of your own: {_END.decode()}",
    )


def _has_last_line(seal: SealReader, splitter: Splitter) -> bool:
    """In exports of ours, the seal looks after it."""
    return seal.header is not None or (splitter.is_after_comment and splitter.last_comment.startswith(_END))


def _report(error: ServiceError) -> dict[str, str | int]:
    return {"reason": error.reason, "text": error.text, "next_step": error.next_step}


if __name__ == "__main__":
    main()
