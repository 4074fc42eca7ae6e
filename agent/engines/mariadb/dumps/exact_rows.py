"""Statements of a dump, sent so that the server refuses what it would change.

Rows are loaded under a sql_mode of ours, whatever the dump sets for its own: mariadb-dump sets one without strictness,
under which a date that the server does not know becomes 0000-00-00 and the import looks whole.

The one fact to know: a strict server takes no value for a generated column, and mariadb-dump writes them; and no '' for
an ENUM, which is what such a server itself holds and a dump has for a value that was none of the list. So the first
become DEFAULT, and rows with the second are loaded without strictness: then the server's warnings have to be
as many as these values, and no more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from agent.engines.mariadb.dumps.columns import Column, Table, plain, table_made_by
from agent.engines.mariadb.dumps.exact_forms import first_changed
from agent.engines.mariadb.dumps.inserts import INSERT, NAME, row_with
from common.errors import ArchiveIncompatibleError

ROWS_OF = "mathison rows"
"""Begins a line of the client's output about rows that come next; parted by tabs, their line in the file, whether a
warning of the server's means that it changed a value, and their table."""
_LAX = b"SET SESSION sql_mode = 'ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO'"
_STRICT = b"SET SESSION sql_mode = 'STRICT_ALL_TABLES,ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO'"
_SAID = b", character_set_connection = @@character_set_client, sql_notes = 1 /*M! , max_error_count = 65535 */"
"""The server's own max_error_count may be 0 (MySQL lets only an administrator change it), and texts go through the
connection's character set, whatever that lacks."""
_UNSAID = b", character_set_connection = @@character_set_client, sql_notes = 0 /*M! , max_error_count = 0 */"
_DEFINING = _LAX + _SAID
_NOTED, _UNNOTED = _STRICT + _SAID, _STRICT + _UNSAID
"""What a strict server does not refuse, it notes. Of what it works out itself it refuses nothing, it only warns."""
_COUNTED = _LAX + _UNSAID
_AS_MANY = b"SELECT IF(@@warning_count = %d, 1, (SELECT 1 UNION SELECT 2))"
"""Fails if not, which a DO would only warn of; see `client.error_of_load`."""
_HISTORY_KEPT = re.compile(rb"\bsystem_versioning_insert_history\s*=\s*(?:1|ON)\b", re.IGNORECASE)
_MAKING = re.compile(rb"\bCREATE\b.{0,99}\bTABLE\b", re.IGNORECASE | re.DOTALL)
_AROUND_ROWS = (b"BEGIN", b"COMMIT")
_HIDING = re.compile(rb"\w+\s+(?:IGNORE|DELAYED)\s", re.IGNORECASE)
"""These would hide what the server changes."""
_LONG_BYTES = 64 << 10
_EMPTY = (b"''", b'""')


def rows_of(line: int | str, table: str) -> str:
    """Which rows, for a person."""
    return f"Line {line} and after, rows of {table}"


def changed_value(where: str, why: str) -> ArchiveIncompatibleError:
    """The error for a value that the server would keep as another."""
    return ArchiveIncompatibleError(
        f"{where}: this server would change a value: {why}.",
        next_step="Import it into a server of the kind and version that it comes from, or correct the value at its "
        "source, then dump again.",
    )


class ExactRows:
    """Gives what to send for each statement that an import carries out, in their order."""

    def __init__(self) -> None:
        self._tables: dict[bytes, Table] = {}
        self._settings = b""
        self._told = (b"", False)
        self._has_history = False

    def of(self, text: bytes, line: int) -> Iterator[bytes]:
        """
        Args:
            text: a statement that may run, with a bounded number of rows.
            line: where it begins in the file.
        """
        if head := INSERT.match(text):
            yield from self._rows(text, head, line)
        elif text in _AROUND_ROWS:
            yield text
        else:
            self._note_table(text)
            yield from self._under(_DEFINING)
            yield text

    def set(self, text: bytes) -> Iterator[bytes]:
        """The same for one that sets something."""
        self._has_history = self._has_history or _HISTORY_KEPT.search(text) is not None
        yield text
        self._settings = b""

    def finish(self) -> bytes:
        """What comes between the rows and all that runs after them under the file's own settings."""
        return b"SELECT '%b', 0, 0, '';\nSET SESSION sql_mode = '';\n" % ROWS_OF.encode()

    def _note_table(self, text: bytes) -> None:
        if table := table_made_by(text):
            if table.may_be_there:
                self._tables.setdefault(table.name, table)
            else:
                self._tables[table.name] = table
        elif _MAKING.search(text):
            # Which table that is, the server may see otherwise.
            self._tables.clear()

    def _rows(self, text: bytes, head: re.Match[bytes], line: int) -> Iterator[bytes]:
        name = plain(head["table"])
        columns = self._columns(name, head["columns"])
        if changed := first_changed(text, head.end(), columns):
            why = f"Data truncated for column '{changed.name.decode('utf-8', 'replace')}'"
            raise changed_value(rows_of(line, name.decode("utf-8", "replace")), why)
        exact, empty = self._exact(text, head.end(), columns)
        if _HIDING.match(text):
            exact = b"%b INTO %b" % (head["word"], exact[head.start("table") :])
        is_computed = any(column.is_computed for column in columns)
        are_warnings_of_values = not (empty or is_computed)
        told = name, are_warnings_of_values
        if told != self._told or len(text) > _LONG_BYTES:
            self._told = told
            about = ROWS_OF.encode(), line, are_warnings_of_values, name.hex().encode() or b"20"
            yield b"SELECT '%b', %d, %d, 0x%b" % about
        if empty:
            yield from self._under(_COUNTED)
            yield exact
            yield _AS_MANY % empty
            return
        yield from self._under(_UNNOTED if is_computed else _NOTED)
        yield exact

    def _columns(self, table: bytes, names: bytes | None) -> Sequence[Column]:
        made = self._tables.get(table)
        if made is None:
            return ()
        if names is None:
            return made.columns
        return made.named([plain(found) for found in re.findall(NAME, names, re.DOTALL)]) or ()

    def _exact(self, text: bytes, at: int, columns: Sequence[Column]) -> tuple[bytes, int]:
        """The rows from there on such that a server takes them, what is before them as it is, and how many '' they have
        for an ENUM that has none."""
        left_out = [found.is_computed or (found.is_period and not self._has_history) for found in columns]
        is_enum = [found.is_enum and (b"''" in text or b'""' in text) for found in columns]
        marked = [out or enum for out, enum in zip(left_out, is_enum, strict=True)]
        if not any(marked):
            return text, 0
        row_of = row_with(tuple(marked))
        groups = [(number, left_out[at]) for number, at in enumerate((at for at, mark in enumerate(marked) if mark), 1)]
        parts: list[bytes] = []
        copied = empty = 0
        while row := row_of.match(text, at):
            for number, is_left_out in groups:
                if is_left_out:
                    parts += (text[copied : row.start(number)], b"DEFAULT")
                    copied = row.end(number)
                elif row[number] in _EMPTY:
                    empty += 1
            at = row.end()
            if not row[len(groups) + 1]:
                return b"".join((*parts, text[copied:])) if parts else text, empty
        # Not as many values as columns: the server says so.
        return text, 0

    def _under(self, settings: bytes) -> Iterator[bytes]:
        if settings != self._settings:
            self._settings = settings
            yield settings
