"""What is done with each statement of an upload: run, left out, left to others to decide, or refused.

So that honest dumps load as well as they can. What a hostile one may not do, the server refuses to its role; refused
here is only what reaches beyond that role's database. Imports little: it runs in a child that has to stay small.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from agent.engines.pg.loading.sql_tokens import IDENTIFIER
from agent.engines.pg.loading.text_encodings import is_ascii, is_of_clients_alone, is_of_servers
from agent.engines.pg.server.catalog import KEPT_SCHEMA_NAME
from agent.engines.pg.server.text_errors import TextError, made_with_create

TRANSACTION_TIMEOUT_SINCE = 170000


class Way(enum.Enum):
    """How a statement is treated."""

    RUN = enum.auto()
    SETTING = enum.auto()
    """It changes the session, so every session gets it."""
    INSERT = enum.auto()
    """One or more INSERT statements."""
    ROWS = enum.auto()
    """COPY FROM stdin."""
    REMOVE = enum.auto()
    """It removes what may not be there, as the first part of a dump made with --clean does."""
    COMMENT_IF_OWN = enum.auto()
    """A comment on what is there already, and may be another's."""
    FILL = enum.auto()
    """It fills a materialized view: with all rows, see `row_security`."""
    EXTENSION = enum.auto()
    """It makes an extension in a schema of its own choice, which the dump may not have."""
    PUBLICATION = enum.auto()
    """It is about a publication, which a later statement may be about that has to be deferred."""
    NO_ROWS = enum.auto()
    """COPY FROM stdin into a table of an extension: whoever loads may not write there, but there may be no rows."""
    SKIP = enum.auto()
    DEFER = enum.auto()
    """Only a superuser may run it, and from a file nobody should."""


@dataclass(frozen=True, slots=True)
class Decision:
    """How one statement is treated.

    Attributes:
        what: of a statement that is left out, what it would have set; of one that is deferred, the kind of object.
            Empty where nobody misses it.
        name: of a deferred object, a publication, an extension's schema or a table of one, as it is written.
        text: to be sent instead.
    """

    way: Way
    what: str = ""
    name: bytes = b""
    text: bytes | None = None


RUN = Decision(Way.RUN)
_SILENTLY = Decision(Way.SKIP)
_PLANNERS = Decision(Way.SKIP, "statistics")
_VERSIONS = Decision(Way.SKIP, "column versions")
_OWNER = Decision(Way.SKIP, "owners")
_GRANT = Decision(Way.SKIP, "grants")
_SERVERS = Decision(Way.SKIP, "foreign servers")
_SETTING = Decision(Way.SETTING)
_REMOVE = Decision(Way.REMOVE)
_INSERT = Decision(Way.INSERT)
_COMMENT_IF_OWN = Decision(Way.COMMENT_IF_OWN)
_FILL = Decision(Way.FILL)
_DATABASES_ENCODING = Decision(
    Way.SETTING,
    text=b"SELECT pg_catalog.set_config('client_encoding', pg_catalog.current_setting('server_encoding'), false)",
)
"""For SQL_ASCII: COPY would take any bytes then, also such as are no text in the database's encoding."""

_I = re.IGNORECASE | re.DOTALL
_FIRST_WORD = re.compile(rb"[A-Za-z]+")
_WORDS = re.compile(rb"[A-Za-z]+(?:\s+[A-Za-z]+){0,2}")
_OWNER_TO = re.compile(rb"ALTER\s.*\sOWNER\s+TO\s+%b\s*\Z" % IDENTIFIER, _I)
_SET = re.compile(rb"SET\s+(?:(?:SESSION|LOCAL)\s+)?([a-z_][\w.]*)(?=[\s=]|\Z)(?:\s*(?:=|TO\b))?\s*(.*)\Z", _I)
_READING = frozenset((b"client_encoding", b"names", b"standard_conforming_strings"))
"""By these the server reads the text itself, so here they have to be understood as it does."""
_PLAIN_VALUE = re.compile(rb"(['\"]?)([\w.: -]+)\1\Z", re.ASCII)
_SWITCH = frozenset(b"on off true false yes no 1 0".split())
_NOT_KEPT = re.compile(rb"SET\s+(?:LOCAL|ROLE|TRANSACTION|CONSTRAINTS|SESSION\s+AUTHORIZATION)\b", _I)
_SET_CONFIG = re.compile(rb"SELECT\s+pg_catalog\.set_config\(", _I)
_UNLINK = re.compile(rb"SELECT\s+pg_catalog\.lo_unlink\(", _I)
_STATISTICS = re.compile(rb"SELECT\s+\*\s+FROM\s+pg_catalog\.pg_restore_(?:relation|attribute)_stats\(", _I)
_EMPTIED_VIEW = re.compile(
    rb"CREATE\s+OR\s+REPLACE\s+VIEW\s+%b(?:\s*\.\s*%b)?\s+AS\s+SELECT\s+NULL::(?!.*\bFROM\b)"
    % (IDENTIFIER, IDENTIFIER),
    _I,
)
"""What pg_dump --clean makes of a view before it drops the key that the view needs."""
_EXTENSION = re.compile(
    rb"(?:CREATE|DROP|ALTER|COMMENT\s+ON)\s+EXTENSION\s+(?:IF\s+(?:NOT\s+)?EXISTS\s+)?(%b)" % IDENTIFIER, _I
)
_EXTENSION_SCHEMA = re.compile(
    rb"CREATE\s+EXTENSION\s+(?:IF\s+NOT\s+EXISTS\s+)?%b\s+(?:WITH\s+)?SCHEMA\s+(%b)\s*\Z" % (IDENTIFIER, IDENTIFIER),
    _I,
)
_NAME = re.compile(IDENTIFIER)
_SERVER = re.compile(
    rb"(?:CREATE|ALTER|DROP|COMMENT\s+ON)\s+(?:USER\s+MAPPING\s+(?:IF\s+(?:NOT\s+)?EXISTS\s+)?FOR\s+%b\s+)?"
    rb"SERVER\s+(?:IF\s+(?:NOT\s+)?EXISTS\s+)?(%b)" % (IDENTIFIER, IDENTIFIER),
    _I,
)
_DEFERRED = re.compile(
    rb"(CREATE|ALTER|COMMENT\s+ON)\s+(EVENT\s+TRIGGER|SUBSCRIPTION|PUBLICATION)\s+(%b)(.*)" % IDENTIFIER,
    _I,
)
_FOR_ALL = re.compile(rb"\s+(?:FOR\s+ALL\s|(?:FOR|ADD|SET)\s+TABLES\s+IN\s)", _I)
_SCHEMA = re.compile(rb"CREATE\s+SCHEMA\s+(%b)\s*\Z" % IDENTIFIER, _I)
_KEPT_SCHEMA = re.compile(
    rb"(?:CREATE|ALTER)\s+SCHEMA\b.*(?:(?-i:\"%(name)b\")|(?<![\w$\"\x80-\xff])%(name)b(?![\w$\"\x80-\xff]))"
    % {b"name": KEPT_SCHEMA_NAME.encode()},
    _I,
)
"""As `moving` calls those that it keeps; whatever is in one is no content of the app."""
_SCHEMA_PUBLIC = re.compile(rb"DROP\s+SCHEMA\s+(?:IF\s+EXISTS\s+)?\"?public\"?\s*(?:CASCADE|RESTRICT)?\s*\Z", _I)
_PUBLIC_COMMENT = re.compile(
    rb"COMMENT\s+ON\s+SCHEMA\s+(?:public|\"public\")\s+IS\s+('standard public schema'\s*\Z)?", _I
)
_COLUMN_VERSION = re.compile(
    rb"(ALTER\s+TABLE\s.*\sALTER\s+COLUMN\s.*)SET\s*\(([^()]*?)(?:,\s*)?pg_attver\s*=\s*[0-9]+([^()]*)\)\s*\Z", _I
)
"""A column's version, which servers from PostgreSQL 15.20 of Debian on keep among its options. Their own pg_dump leaves
it out, those of other majors write it, and other servers do not know it.
"""
_TAKES_AWAY = re.compile(
    rb"ALTER\s+(?:TABLE|DOMAIN|PUBLICATION|VIEW|FOREIGN\s+TABLE)\s.*\sDROP\s+(?:CONSTRAINT|DEFAULT|IDENTITY|TABLE)\b",
    _I,
)
_COPY = re.compile(
    rb"COPY\s+(%b(?:\s*\.\s*%b){0,2})\s*(?:\(%b(?:,%b){0,1600}\)\s*)?FROM\s+STDIN\b([^;\\$]*)\Z"
    % (IDENTIFIER, IDENTIFIER, *(rb"\s*%b\s*" % IDENTIFIER,) * 2),
    _I,
)
"""No table has more than 1600 columns."""
_COPY_OPTION = re.compile(rb"[eE]?'[^']*'|%b" % IDENTIFIER)
_COPY_FORMS = frozenset(
    b"with format text csv delimiter delimiters using as null quote escape header encoding true false on off".split()
)
"""What says how rows are written; pg_dump writes none of them. Others say which rows and values are taken (ON_ERROR,
WHERE, FORCE_NULL, ...), so that a table could come with less than the file has, without a word.
"""


class There(NamedTuple):
    """What the database has already, by names as the catalogs have them; of tables with their schema."""

    extensions: frozenset[bytes] = frozenset()
    foreign_servers: frozenset[bytes] = frozenset()
    extension_tables: frozenset[tuple[bytes, ...]] = frozenset()


class Judge:
    """Decides about statements.

    Attributes:
        extensions: those that the upload asks for, and the schema for each; empty: it names none.
    """

    def __init__(self, there: There, *, server_version_num: int) -> None:
        self.extensions: dict[bytes, bytes] = {}
        self._there = there._replace(extensions=there.extensions | {b"plpgsql"})
        self._server_version_num = server_version_num
        self._deferred_publications: set[bytes] = set()
        self._by_word: dict[bytes, Callable[[bytes, int], Decision]] = {
            b"ALTER": self._alter,
            b"COMMENT": self._comment,
            b"COPY": self._copy,
            b"CREATE": self._create,
            b"DROP": self._drop,
            b"GRANT": lambda _text, _line: _GRANT,
            b"INSERT": lambda _text, _line: _INSERT,
            b"PREPARE": self._prepare,
            b"REFRESH": lambda _text, _line: _FILL,
            b"RESET": lambda _text, _line: _SETTING,
            b"REVOKE": lambda _text, _line: _GRANT,
            b"SECURITY": lambda _text, _line: Decision(Way.SKIP, "security labels"),
            b"SELECT": self._select,
            b"SET": self._set,
        }

    def decide(self, text: bytes, line: int) -> Decision:
        """
        Args:
            text: a statement as `sqltext` yields it.
            line: where it is, for the error.
        Raises:
            TextError: no dump that fits has it, or it would leave something outside of its database.
        """
        word = _FIRST_WORD.match(text)
        decide = self._by_word.get(word[0].upper()) if word else None
        return decide(text, line) if decide else RUN

    def _alter(self, text: bytes, line: int) -> Decision:
        words = _words(text)
        _refuse_kept_schema(text, line)
        if words.startswith(b"ALTER DEFAULT PRIVILEGES"):
            return _GRANT
        if words.startswith(b"ALTER DATABASE"):
            raise made_with_create(line)
        if _OWNER_TO.match(text):
            return _OWNER
        if b"pg_attver" in text and (found := _COLUMN_VERSION.match(text)):
            options = found[2] + found[3]
            return Decision(Way.RUN, text=found[1] + b"SET (" + options.strip(b", ") + b")") if options else _VERSIONS
        if _TAKES_AWAY.match(text):
            return _REMOVE
        return self.about_what_is_there(text) or self._deferred(text) or RUN

    def _comment(self, text: bytes, line: int) -> Decision:
        if _words(text) == b"COMMENT ON DATABASE":
            return _SILENTLY
        if found := _PUBLIC_COMMENT.match(text):
            return _SILENTLY if found[1] else _COMMENT_IF_OWN
        return self.about_what_is_there(text) or self._deferred(text) or RUN

    def _copy(self, text: bytes, line: int) -> Decision:
        found = _COPY.match(text)
        if not found:
            raise TextError(
                "ARCHIVE_REFUSED",
                f"Line {line}: the file tries to copy from or to something that is not the file itself.",
                next_step="A dump made by pg_dump has no such line; make a new one.",
            )
        options = [one for one in _COPY_OPTION.findall(found[2]) if not one.endswith(b"'")]
        if others := [one for one in options if plain_name(one) not in _COPY_FORMS]:
            raise TextError(
                "ARCHIVE_REFUSED",
                f"Line {line}: the file copies rows with {others[0].decode(errors='replace')}, which pg_dump does not "
                "write: the table could come with other rows than the file has.",
                next_step="Make the dump with pg_dump.",
            )
        if tuple(plain_name(part) for part in _NAME.findall(found[1])) in self._there.extension_tables:
            return Decision(Way.NO_ROWS, name=found[1])
        return Decision(Way.ROWS)

    def _create(self, text: bytes, line: int) -> Decision:
        words = _words(text)
        _refuse_kept_schema(text, line)
        if words.startswith(b"CREATE DATABASE"):
            raise made_with_create(line)
        if words.startswith(b"CREATE SCHEMA") and (found := _SCHEMA.match(text)):
            # public is there, and so are the schemas of extensions that were created before.
            return Decision(Way.RUN, text=b"CREATE SCHEMA IF NOT EXISTS " + found[1])
        if _EMPTIED_VIEW.match(text):
            return _REMOVE
        if words.startswith(b"CREATE EXTENSION") and (found := _EXTENSION.match(text)):
            schema = _EXTENSION_SCHEMA.match(text)
            self.extensions[plain_name(found[1])] = plain_name(schema[1]) if schema else b""
            if schema and not plain_name(schema[1]).startswith(b"pg_") and not self.about_what_is_there(text):
                return Decision(Way.EXTENSION, name=schema[1])
        return self.about_what_is_there(text) or self._deferred(text) or RUN

    def _drop(self, text: bytes, line: int) -> Decision:
        if _words(text).startswith(b"DROP DATABASE"):
            raise made_with_create(line)
        return _SILENTLY if _SCHEMA_PUBLIC.match(text) else self.about_what_is_there(text) or _REMOVE

    def _prepare(self, _text: bytes, line: int) -> Decision:
        """A prepared transaction would outlive its session and keep the database from being dropped."""
        raise TextError("ARCHIVE_REFUSED", f"Line {line}: the file tries to leave a prepared transaction behind.")

    def _select(self, text: bytes, line: int) -> Decision:
        if _SET_CONFIG.match(text):
            return _SETTING
        if _UNLINK.match(text):
            return _REMOVE
        # The planner's statistics are made anew after loading; older servers have no such functions.
        return _PLANNERS if _STATISTICS.match(text) else RUN

    def _set(self, text: bytes, line: int) -> Decision:
        found = _SET.match(text)
        if found is None:
            raise _oddly_set(text, line)
        name, value = found[1].lower(), found[2].strip(b" \t\r\n'\"")
        if name in _READING:
            _require_plain(name, found[2].rstrip(), text, line)
        if _NOT_KEPT.match(text):
            return RUN
        if name == b"transaction_timeout" and self._server_version_num < TRANSACTION_TIMEOUT_SINCE:
            # Every pg_dump and pg_restore from 17 on writes it, whatever the server.
            return Decision(Way.SKIP, "transaction_timeout")
        if name == b"default_tablespace" and value:
            return Decision(Way.SKIP, "tablespaces")
        if name in (b"client_encoding", b"names") and is_ascii(value):
            return _DATABASES_ENCODING
        return _SETTING

    def about_what_is_there(self, text: bytes) -> Decision | None:
        """About an extension or a foreign server that is there already."""
        if (found := _EXTENSION.match(text)) and plain_name(found[1]) in self._there.extensions:
            return _SILENTLY
        if (found := _SERVER.match(text)) and plain_name(found[1]) in self._there.foreign_servers:
            return _SERVERS
        return None

    def _deferred(self, text: bytes) -> Decision | None:
        found = _DEFERRED.match(text)
        if found is None:
            return None
        kind = b" ".join(found[2].lower().split())
        if kind == b"publication":
            if found[1].upper() in (b"CREATE", b"ALTER") and _FOR_ALL.match(found[4]):
                self._deferred_publications.add(plain_name(found[3]))
            if plain_name(found[3]) not in self._deferred_publications:
                return Decision(Way.PUBLICATION, name=found[3])
        return Decision(Way.DEFER, kind.decode(), found[3])


def _require_plain(name: bytes, written: bytes, text: bytes, line: int) -> None:
    """TextError where a value is not one that is certain to be read here as by the server."""
    value = found[2] if (found := _PLAIN_VALUE.match(written)) else b""
    if name == b"standard_conforming_strings":
        if value.lower() not in _SWITCH:
            raise _oddly_set(text, line)
    elif is_of_clients_alone(value):
        encoding = value.decode("ascii", "replace")
        raise TextError(
            "ARCHIVE_INCOMPATIBLE",
            f"Line {line}: the dump is written in {encoding}, which no PostgreSQL database can be in.",
            next_step="Dump with --encoding=UTF8.",
        )
    elif not is_of_servers(value):
        raise _oddly_set(text, line)


def _oddly_set(text: bytes, line: int) -> TextError:
    head = " ".join(text[:60].decode(errors="replace").split())
    return TextError(
        "ARCHIVE_REFUSED",
        f"Line {line}: a setting in a form that pg_dump does not write, {head!r}; the server could read the file "
        "otherwise than it was looked at.",
        next_step="Make the dump with pg_dump.",
    )


def _refuse_kept_schema(text: bytes, line: int) -> None:
    if _KEPT_SCHEMA.match(text):
        raise TextError(
            "ARCHIVE_REFUSED",
            f"Line {line}: the file makes a schema that is called like those in which an import keeps previous data; "
            "it would never be exported.",
            next_step="Dump without it (--exclude-schema='mathison_*').",
        )


def copied_table(text: bytes) -> tuple[bytes, bool]:
    """The table that a COPY FROM stdin fills, as it is written, and whether each line is one row.

    Rows in other forms than pg_dump's, CSV for example, may go over several lines.
    """
    found = _COPY.match(text)
    return (found[1], not found[2].strip()) if found else (b"", False)


def _words(text: bytes) -> bytes:
    """The first words, at most three, in upper case."""
    found = _WORDS.match(text)
    return b" ".join(found[0].upper().split()) if found else b""


def plain_name(identifier: bytes) -> bytes:
    """A name as the catalogs have it."""
    if identifier.startswith(b'"'):
        return identifier[1:-1].replace(b'""', b'"')
    return identifier.lower()
