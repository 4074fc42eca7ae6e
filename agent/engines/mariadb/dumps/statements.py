"""What an import does with each statement of a dump: a closed list, everything else is refused by name.

The list is what mariadb-dump and mysqldump write for tables, rows and sequences and, where the caller takes them, for
views, triggers, routines and events. That a listed statement stays within its schema is the server's part: the user
that loads it may do nothing elsewhere.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from dataclasses import replace

from agent.engines.mariadb.dumps import client_reads, definitions, inserts, own_tables, sequence_uses
from agent.engines.mariadb.dumps.definitions import Schemas
from agent.engines.mariadb.dumps.inserts import NAME
from agent.engines.mariadb.dumps.releases import Release
from agent.engines.mariadb.dumps.sqltext import Splitter, Statement


class Way(enum.Enum):
    """How a statement is treated."""

    RUN = enum.auto()
    SET = enum.auto()
    """Run at once, and once more among what is run later: definitions depend on it."""
    LATER = enum.auto()
    """Run when all rows are in, so that nothing of what the file brings along runs meanwhile."""
    SKIP = enum.auto()


class RefusedError(Exception):
    """A statement that an import does not carry out.

    Attributes:
        reason: as in `common.errors`.
    """

    def __init__(self, reason: str, text: str, *, next_step: str = "") -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text
        self.next_step = next_step


_I = re.IGNORECASE | re.DOTALL
_FIRST_WORD = re.compile(rb"[A-Za-z]+")
_VALUE = rb"(?:'[\w+:,. -]*'|\"[\w+:,. -]*\"|@?@?(?:SESSION\.|GLOBAL\.)?[\w.]+|-?\d+)"
_ASSIGNMENT = re.compile(
    rb"(?:(?P<user>@\w+)|(?:@@)?(?:(?:SESSION|LOCAL)(?:\.|\s+))?(?P<name>[A-Za-z_]\w*))\s*:?=\s*(?P<value>%b)" % _VALUE,
    _I,
)
_NAMES = re.compile(rb"NAMES\s+'?(?P<charset>\w+)'?(?:\s+COLLATE\s+'?\w+'?)?", _I)
_SKIPPED_SET = re.compile(
    rb"SET\s+(?:@@(?:GLOBAL|SESSION)\.)?(?:GTID_PURGED|SQL_LOG_BIN)\b|SET\s+AUTOCOMMIT\b"
    rb"|SET\s+@MYSQLDUMP_TEMP_LOG_BIN\s*=\s*@@SESSION\.SQL_LOG_BIN\Z"
    rb"|SET\s+@OLD_AUTOCOMMIT\s*=\s*@@AUTOCOMMIT\s*,\s*@@AUTOCOMMIT\s*=\s*0\Z"
    rb"|SET\s+(?:@\w+\s*=\s*@@NOTE_VERBOSITY\s*,\s*)?NOTE_VERBOSITY\s*=\s*@?\w+\Z",
    _I,
)
_TABLE_OPTION = re.compile(rb"\b(?:(?:DATA|INDEX)\s+DIRECTORY|CONNECTION|UNION|TABLESPACE)\b\s*=?", _I)
_OWN_FILE = re.compile(rb"\bTABLESPACE\s*=?\s*`innodb_file_per_table`", _I)
"""MySQL's: a file of the table's own, as without these words. What is quoted stays so when they are left out."""
_ROOM = re.compile(rb"\bAUTOEXTEND_SIZE\b(?! ?=? ?0+\b(?!x))", _I)
"""MySQL's: most is 4 GiB for each table."""
_QUERY = re.compile(rb"\b(?:SELECT|WITH\s+RECURSIVE|VALUES\s*\(|HANDLER)\b", _I)
_ENGINE = re.compile(rb"\b(?:STORAGE\s+)?ENGINE\s*=?\s*([\w`'\"]+)", _I)
_TABLE = re.compile(rb"CREATE\s+(?:OR\s+REPLACE\s+)?TABLE\b", _I)
_ROWS_IN_COMMENT = re.compile(rb"/\*M?!\d*\s*(?:INSERT|REPLACE)\b", _I)
_SETVAL = re.compile(rb"(?:DO|SELECT)\s+SETVAL\(\s*%b\s*,\s*-?\d+(?:\s*,\s*\d+){0,2}\s*\)" % NAME, _I)
_KEYS = re.compile(rb"ALTER\s+TABLE\s+%b\s+(?:DISABLE|ENABLE)\s+KEYS" % NAME, _I)
_HISTOGRAM = re.compile(
    rb"ANALYZE\s+TABLE\s+%b\s+UPDATE\s+HISTOGRAM\s+ON\s+%b\s+WITH\s+\d{1,4}\s+BUCKETS"
    rb"(?:\s+(?:AUTO|MANUAL)\s+UPDATE)?" % (NAME, NAME),
    _I,
)
"""MySQL's: what its rows are like, for the planning of queries."""
_PROGRAM = re.compile(
    rb"(?:CREATE|ALTER|DROP)\b.*?\b(VIEW|TRIGGER|PROCEDURE|FUNCTION|PACKAGE|EVENT)\b|(DELIMITER)\b", _I
)

_SETTINGS = frozenset(
    b"character_set_client character_set_results character_set_connection collation_connection time_zone "
    b"unique_checks foreign_key_checks sql_mode sql_notes sql_quote_show_create "
    b"system_versioning_insert_history".split()
)
_CHARSETS = frozenset(b"ascii binary latin1 latin2 utf8 utf8mb3 utf8mb4".split())
"""In these no character of several bytes ends in that of a quote or backslash."""
_SHORT_NAMES = {
    b"cs_client": b"character_set_client",
    b"cs_results": b"character_set_results",
    b"col_connection": b"collation_connection",
}
"""Of settings in the names of variables that dump programs keep them in."""
_MODES = re.compile(rb"(?!DEFAULT\Z)(?:[A-Z_]+(?:,[A-Z_]+)*)?", _I)
"""Names, no number, since the server takes a sum of bits, too; nor what it does by default, which nobody here knows."""
_ODD_MODES = (b"NO_BACKSLASH_ESCAPES", b"ANSI", b"ORACLE", b"MSSQL", b"DB2", b"POSTGRESQL", b"MAXDB")
"""With these the server would see other ends of strings than we do."""
_ENGINES = frozenset(b"innodb myisam aria memory heap".split())


def decide_all(statement: Statement, schemas: Schemas | None, release: Release) -> list[tuple[Way, bytes]]:
    """How a statement is treated, and what is to be sent of it; several where DELIMITER lines keep them together.

    Args:
        schemas: None: views, triggers, routines and events are refused.
        release: of the server that it goes to.
    Raises:
        RefusedError: it is on no list.
        SqlTextError: what it consists of cannot be told.
    """
    if schemas is not None:
        try:
            program = definitions.to_run(statement.text, schemas)
        except definitions.UnreadableError as unreadable:
            raise _refused(statement.line, str(unreadable)) from None
        except client_reads.ReadOtherwiseError as odd:
            raise RefusedError(
                "ARCHIVE_INCOMPATIBLE",
                f"Line {statement.line}: a trigger, routine or event {odd}.",
                next_step="Write it in another way at its source, then dump again.",
            ) from None
        if program is not None:
            return [(Way.LATER, program)]
        if definitions.is_charset_of_database(statement.text):
            return [(Way.SKIP, b"")]
    if not statement.is_raw:
        parts = [statement]
    else:
        _refuse_program(statement)
        splitter = Splitter()
        found = [*splitter.add(statement.text + b"\n;\n"), *splitter.finish()]
        parts = [Statement(part.text, statement.line + part.line - 1) for part in found]
    decided = [(part.line, *decide(part, release)) for part in parts]
    return [(way, _with_own_sequences(text, line, schemas) if schemas else text) for line, way, text in decided]


def _with_own_sequences(text: bytes, line: int, schemas: Schemas) -> bytes:
    """The text of a table, with its defaults from the dump's sequences taken where those are made."""
    if not _TABLE.match(text):
        return text
    try:
        return schemas.with_sequences_moved(text)
    except sequence_uses.ForeignSequenceError as foreign:
        raise RefusedError(
            "ARCHIVE_INCOMPATIBLE",
            f"Line {line}: a column takes its default from a sequence of the database {foreign.schema}, which is not "
            "the one that the file is a dump of.",
            next_step="Give the column a default from a sequence of its own database, then dump again.",
        ) from None


def decide(statement: Statement, release: Release) -> tuple[Way, bytes]:
    """How a statement is treated that is one of tables, rows or sequences.

    Raises:
        RefusedError: it is on no list.
    """
    text, line = statement.text, statement.line
    if b"\\\0" in text:
        # A client program loses what comes behind it in its line, so the end of a string, too.
        raise _refused(line, "it has a backslash before a zero byte")
    if _ROWS_IN_COMMENT.match(text):
        raise _refused(line, "it inserts rows within a comment")
    word = _FIRST_WORD.match(text)
    if word and word[0].upper() in (b"INSERT", b"REPLACE"):
        if not inserts.is_plain(text):
            raise _refused(line, "it inserts something else than rows of plain values")
        return Way.RUN, text
    text = release.read(text)
    return _decide(Statement(text, line)) if text else (Way.SKIP, b"")


def _decide(statement: Statement) -> tuple[Way, bytes]:
    text, line = statement.text, statement.line
    word = _FIRST_WORD.match(text)
    match word[0].upper() if word else b"":
        case b"SET":
            return _decide_set(statement), text
        case b"CREATE" | b"ALTER" | b"DROP":
            _check_definition(statement)
            return Way.RUN, text
        case b"LOCK" | b"UNLOCK" | b"START" | b"BEGIN" | b"COMMIT":
            return Way.SKIP, text
        case b"DO" | b"SELECT" if _SETVAL.fullmatch(text):
            return Way.RUN, text
        case b"ANALYZE" if _HISTOGRAM.fullmatch(text):
            return Way.RUN, text
        case b"USE":
            raise _of_several(line)
    _refuse_program(statement)
    raise _refused(line, statement.first_words)


def _decide_set(statement: Statement) -> Way:
    text, line = statement.text, statement.line
    if _SKIPPED_SET.match(text):
        # Of replication, of a transaction around it all (each statement is committed on its own here), and of notes,
        # which an import needs.
        return Way.SKIP
    rest = text[3:].strip()
    if names := _NAMES.fullmatch(rest):
        _check_charset(names["charset"], line)
        return Way.SET
    for part in _parts(rest):
        found = _ASSIGNMENT.fullmatch(part.strip())
        if found is None:
            raise _refused(line, "it sets something that no dump sets")
        value = found["value"].strip(b"'\"")
        name = (found["user"] or found["name"]).lower()
        if not found["user"] and name not in _SETTINGS:
            raise _refused(line, f"it sets {name.decode('ascii', 'replace')}")
        if found["user"] or value.startswith(b"@"):
            # A number or text of another setting may be the name of a mode or character set that we do not let through.
            if not value.startswith(b"@") or (kept := _kept_in(name)) is None or kept != _kept_in(value.lower()):
                raise _refused(line, f"it sets {name.decode('ascii', 'replace')} to something that no dump sets it to")
        elif name.startswith((b"character_set", b"collation")):
            _check_charset(value.partition(b"_")[0], line)
        elif name == b"sql_mode" and (not _MODES.fullmatch(value) or any(mode in value.upper() for mode in _ODD_MODES)):
            raise _refused(line, "it sets a sql_mode in which strings are written differently, or not by its names")
    return Way.SET


def assignments(text: bytes) -> Iterator[tuple[bytes, bytes]]:
    """What a SET that was let through sets, and to what: names and variables in lower case, texts without quotes."""
    for part in _parts(text[3:].strip()):
        if found := _ASSIGNMENT.fullmatch(part.strip()):
            value = found["value"].strip(b"'\"")
            yield (found["user"] or found["name"]).lower(), value.lower() if value.startswith(b"@") else value


def _kept_in(name: bytes) -> bytes | None:
    """The setting whose values a setting or variable may have, by its name in lower case; None: no such one."""
    name = name.removeprefix(b"@@session.").removeprefix(b"@@")
    if name.startswith(b"@"):
        name = next((known for known in (*_SETTINGS, *_SHORT_NAMES) if name.endswith(b"_" + known)), b"")
    name = _SHORT_NAMES.get(name, name)
    if name not in _SETTINGS:
        return None
    return b"character set" if name.startswith((b"character_set", b"collation")) else name


def _parts(text: bytes) -> list[bytes]:
    """Assignments, parted at commas that are in no string."""
    return re.findall(rb"(?:'[^']*'|\"[^\"]*\"|[^,'\"])+", text)


def _check_charset(charset: bytes, line: int) -> None:
    if charset.lower() not in _CHARSETS:
        raise RefusedError(
            "ARCHIVE_INCOMPATIBLE",
            f"Line {line}: the dump is written in the character set {charset.decode('ascii', 'replace')}.",
            next_step="Dump with --default-character-set=utf8mb4.",
        )


def _check_definition(statement: Statement) -> None:
    _refuse_program(statement)
    code, line = statement.code, statement.line
    words = code.upper().split(b" ")
    kind = words[3:4] if words[1:3] == [b"OR", b"REPLACE"] else words[1:2]
    if kind in ([b"DATABASE"], [b"SCHEMA"]):
        raise _of_several(line)
    if kind not in ([b"TABLE"], [b"SEQUENCE"]):
        # A temporary table, too: how large one is, nobody can ask.
        raise _refused(line, statement.first_words)
    if words[0] == b"ALTER" and not _KEYS.fullmatch(statement.text):
        raise _refused(line, "it alters a table")
    is_odd = client_reads.DOLLAR.search(code) or client_reads.DELIMITER_LINE.search(statement.text)
    # A byte that some character sets have for a blank, and others for a part of a letter.
    if is_odd or not code.isascii():
        raise RefusedError(
            "ARCHIVE_INCOMPATIBLE",
            f"Line {line}: a table or column has a name in no quotes that begins with $ or has letters beyond ASCII, "
            "or a line begins with the word DELIMITER: a client program or server may read that otherwise.",
            next_step="Dump with --quote-names, or give it another name at its source, then dump again.",
        )
    if _QUERY.search(code):
        raise _refused(line, "it makes a table from what a query gives")
    if words[0] != b"ALTER" and (fault := own_tables.fault_of(statement.text, code)):
        raise _refused(line, fault)
    if own_tables.has_foreign_parent(code):
        raise RefusedError(
            "ARCHIVE_INCOMPATIBLE",
            f"Line {line}: a table has a foreign key to one that is named with its database, so is in another.",
            next_step="Drop that foreign key at its source, then dump again.",
        )
    if found := _TABLE_OPTION.search(replace(statement, text=_OWN_FILE.sub(b" ", statement.text)).code):
        option = b" ".join(found[0].upper().split()).rstrip(b"= ").decode("ascii", "replace")
        raise _refused(line, f"it makes a table with {option}, which leads out of its database")
    if _ROOM.search(code):
        raise RefusedError(
            "ARCHIVE_INCOMPATIBLE",
            f"Line {line}: a table is made with AUTOEXTEND_SIZE, by which a server takes room on its disk for nothing.",
            next_step="Set it to 0 with ALTER TABLE at its source, then dump again.",
        )
    for engine in _ENGINE.findall(code):
        name = engine.strip(b"`'\"").lower()
        if name not in _ENGINES:
            raise RefusedError(
                "ARCHIVE_INCOMPATIBLE",
                f"Line {line}: a table uses the storage engine {name.decode('ascii', 'replace') or 'given in quotes'}; "
                "an import takes InnoDB, MyISAM, Aria and MEMORY.",
                next_step="Change the table's engine at its source, then dump again.",
            )


def _refuse_program(statement: Statement) -> None:
    """Views, triggers and routines, where the caller does not take them, or in other words than a server's."""
    if found := _PROGRAM.match(statement.code[:2000]):
        kind = (found[1] or b"trigger or routine").lower().decode()
        raise RefusedError(
            "ARCHIVE_INCOMPATIBLE",
            f"Line {statement.line}: the dump holds a {kind} that this import does not take.",
            next_step="Dump with --skip-triggers and without --routines and --events, leave views out with "
            "--ignore-table, and make them by hand afterwards.",
        )


def _of_several(line: int) -> RefusedError:
    return RefusedError(
        "ARCHIVE_WRONG_KIND",
        f"Line {line}: the dump names its database itself, so it was made with --databases or --all-databases.",
        next_step="Dump one database by its name alone: mariadb-dump --single-transaction NAME.",
    )


def _refused(line: int, what: str) -> RefusedError:
    return RefusedError(
        "ARCHIVE_REFUSED",
        f"Line {line}: the file has a statement that no dump of tables has: {what}.",
        next_step="Make a dump with mariadb-dump or mysqldump.",
    )
