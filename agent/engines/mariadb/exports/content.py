"""What is in a database, as the parts of a fingerprint: rows of tables, and how all else in it is made.

Rows and sequences are taken from the dump's text while it passes by. Views, triggers, routines and events are asked of
the server, not taken from the dump, so that a dump that lacks one is found out.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import time
from collections.abc import Sequence

from agent.engines.mariadb.dumps.inserts import INSERT, row_with
from agent.engines.mariadb.dumps.sequence_texts import SequenceHasher
from agent.engines.mariadb.dumps.view_reads import moved
from agent.engines.mariadb.names import plain, quoted
from agent.engines.mariadb.server import programs
from agent.engines.mariadb.server.catalog import columns_of
from agent.engines.mariadb.server.programs import Shown
from agent.engines.mariadb.server.settings import Login
from common.fingerprints import Fingerprint

_GENERATED_FROM = 3
SCHEME = "mariadb/3"
_ROW = re.compile(rb"\([^'()]*(?:'[^'\\]*(?:\\.[^'\\]*)*'[^'()]*)*\)", re.DOTALL)
_SECTION_START = b"\n-- Dumping data for table `"
_SECTION = re.compile(rb"\n-- Dumping data for table (`(?:[^`]|``)*`)$", re.MULTILINE)
_END_OF_ROWS = b" ENABLE KEYS */;\n"
"""Where rows end, also those of a table that has none. The line of a row ends in `),` or `);`."""


class Content:
    """The fingerprint of a database whose dump is shown to it, from `begin` to `finish`.

    Attributes:
        fingerprint: after `finish`; None: it was withheld, or definitions were altered meanwhile, so nobody can say
            which the dump holds.
    """

    fingerprint: Fingerprint | None = None

    def __init__(self, login: Login, database: str, *, is_staged: bool = False, withheld: str = "") -> None:
        """
        Args:
            is_staged: it was loaded by `loading.load` and is not in its place.
            withheld: a sentence about why no fingerprint is made of what is known not to come back as it is.
        """
        self.withheld = withheld
        self._login = login
        self._database = database
        self._is_staged = is_staged
        self._tables = TableHasher()
        self._sequences = SequenceHasher()
        self._before: dict[str, str] = {}

    async def begin(self) -> None:
        """Before the dump."""
        for table, columns in (await columns_of(self._login, self._database)).items():
            is_period = [column[_GENERATED_FROM] in ("ROW START", "ROW END") for column in columns]
            if any(is_period):
                # When a row came, which an import does not keep.
                self._tables.leave_out(table, is_period)
        self._before = await self._definitions()

    def add(self, piece: bytes) -> None:
        """The next piece of the dump."""
        self._tables.add(piece)
        self._sequences.add(piece)

    @property
    def longest_row(self) -> tuple[int, str]:
        """Its size in bytes as the dump has it, and its table; 0 when none is longer than a piece of the dump."""
        size_bytes, table = self._tables.longest_line
        return size_bytes, plain(table.decode(errors="replace"))

    @property
    def read_at(self) -> dict[str, float]:
        """By when all rows of a table were read, by time.monotonic(); without tables that did not end yet."""
        return {plain(table.decode(errors="replace")): moment for table, moment in self._tables.ended_at.items()}

    @property
    def rows(self) -> int:
        """How many there were in what was added."""
        return self._tables.row_count

    async def finish(self) -> None:
        """After the dump."""
        if not self.withheld and await self._definitions() == self._before:
            self.fingerprint = Fingerprint.of(SCHEME, {**self._tables.parts, **self._sequences.parts, **self._before})

    async def _definitions(self) -> dict[str, str]:
        found = await programs.show(self._login, self._database)
        return {
            f"{shown.listed.kind} {shown.listed.name}": digest_of(shown, self._database, is_staged=self._is_staged)
            for shown in found
        }


def digest_of(shown: Shown, database: str, *, is_staged: bool = False) -> str:
    """SHA-256 of how one is made, the same in another database, for another account, and of another release."""
    text = shown.without_definer
    if shown.listed.kind == "view":
        text = moved(text, database, "")
    if shown.listed.kind == "event":
        enabled = "DISABLED" if is_staged else "ENABLED"
        text = programs.with_status(text, is_enabled=shown.listed.about == enabled)
    made_under = [shown.charset, shown.collation, shown.sql_mode, shown.time_zone]
    # Bytes that are no text are hashed as they are.
    told = json.dumps([text, *made_under], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(told.encode(errors="surrogateescape")).hexdigest()


class TableHasher:
    """Row count and SHA-256 of the rows of each table, from a dump's text.

    The one fact to know: rows are hashed as they are written, in the order of their keys, one to a line or many to
    one, as clients differ. There are millions and an export waits for this, so they are handled by the statement.

    Attributes:
        longest_line: of those that did not end in the piece that they began in: size in bytes, and quoted table.
        ended_at: when the end of a quoted table's rows was seen, by time.monotonic().
    """

    def __init__(self) -> None:
        self.longest_line = (0, b"")
        self.ended_at: dict[bytes, float] = {}
        self._table = b""
        self._rest = bytearray(b"\n")
        self._uncounted: dict[bytes, tuple[re.Pattern[bytes], int]] = {}
        self._digests: dict[bytes, hashlib._Hash] = {}
        self._rows: dict[bytes, int] = {}

    def leave_out(self, table: str, columns: Sequence[bool]) -> None:
        """Do not count what a table has in the columns that are marked."""
        self._uncounted[quoted(table).encode()] = row_with(tuple(columns), end=b""), sum(columns)

    def add(self, piece: bytes) -> None:
        """The next piece of the dump."""
        end = piece.rfind(b"\n")
        if end < 0:
            self._rest += piece
            return
        if self._table:
            self.longest_line = max(self.longest_line, (len(self._rest) + piece.index(b"\n"), self._table))
        # Each line with the line ends before and behind it.
        text = b"".join((self._rest, memoryview(piece)[: end + 1]))
        self._rest = bytearray(piece[end:])
        at = 0
        while (start := text.find(_SECTION_START, at)) >= 0:
            self._hash(text[at : start + 1])
            at = start + 1
            if found := _SECTION.match(text, start):
                self._table, at = found[1], found.end()
        self._hash(text[at:])

    @property
    def rows(self) -> dict[str, int]:
        """How many were seen of each table."""
        return {plain(name.decode(errors="replace")): count for name, count in self._rows.items()}

    @property
    def row_count(self) -> int:
        """Of all tables."""
        return sum(self._rows.values())

    @property
    def parts(self) -> dict[str, str]:
        """Of all that was added, for a fingerprint."""
        return {
            f"table {name[1:-1].decode(errors='replace')}": f"{self._rows[name]} rows, {digest.hexdigest()}"
            for name, digest in self._digests.items()
        }

    def _hash(self, text: bytes) -> None:
        """Whole lines, of the present table up to where its rows end."""
        if not (table := self._table):
            return
        digest = self._digests.setdefault(table, hashlib.sha256())
        if (end := text.find(_END_OF_ROWS)) >= 0:
            # What looks like a row from here on is in the body of a trigger or routine.
            text, self._table = text[: end + 1], b""
            self.ended_at[table] = time.monotonic()
        # No row has a line end in it. What stands between two of them is not hashed.
        joined = b"(".join(text.split(b",\n("))
        rows = self._rows.get(table, 0) + (len(text) - len(joined)) // len(b",\n")
        # Finds line ends several times as fast as split does.
        for line in io.BytesIO(joined):
            if line.startswith(b"("):
                # What follows only says where the statement ends. A slice of bytes would copy them all.
                digest.update(self._lasting(table, memoryview(line)[:-2]))
                rows += 1
            elif line.endswith((b";\n", b",\n")) and (head := INSERT.match(line)):
                # Clients before 10.11 and MySQL's write many rows into one line, others the first behind the columns.
                found, count = _without_commas(line[head.end() : -2].lstrip())
                digest.update(self._lasting(table, found))
                rows += count
        self._rows[table] = rows

    def _lasting(self, table: bytes, rows: bytes | memoryview) -> bytes | memoryview:
        """Rows without the values that do not count."""
        if table not in self._uncounted:
            return rows
        row, groups = self._uncounted[table]

        def emptied(found: re.Match[bytes]) -> bytes:
            parts: list[bytes | memoryview] = []
            at = found.start()
            for group in range(1, groups + 1):
                parts.append(rows[at : found.start(group)])
                at = found.end(group)
            return b"".join((*parts, rows[at : found.end()]))

        return row.sub(emptied, rows)


def _without_commas(values: bytes) -> tuple[bytes, int]:
    """The rows of `(…),(…)`, of which some may have no comma between them, without commas, and one more than those."""
    rows = values.split(b"),(")
    if b"\\\\" in values or any((row.count(b"'") - row.count(b"\\'")) % 2 for row in rows):
        # Some of these may be within strings.
        joined = b"".join(_ROW.findall(values))
        return joined, 1 + len(values) - len(joined)
    return b")(".join(rows), len(rows)
