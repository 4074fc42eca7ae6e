"""How a dump writes views, triggers, routines and events, and what of that an import runs.

The one fact to know: it goes to the server as one statement whatever is written in it (`one_statement`), and who loads
becomes its definer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from agent.engines.mariadb.dumps import one_statement, sequence_uses
from agent.engines.mariadb.dumps.columns import plain
from agent.engines.mariadb.dumps.view_reads import moved
from agent.engines.mariadb.names import is_within, within

_I = re.IGNORECASE | re.DOTALL
_NAME = rb"(?:`(?:[^`]|``)*`|[\w$%.-]+|'[^']*')"
_DEFINER = rb"DEFINER\s*=\s*%b(?:\(\))?(?:\s*@\s*%b)?\s*" % (_NAME, _NAME)
_KINDS = rb"(?:AGGREGATE\s+)?FUNCTION|PROCEDURE|TRIGGER|EVENT|VIEW"
_CREATE = re.compile(
    rb"CREATE\s+(?P<replace>OR\s+REPLACE\s+)?(?P<algorithm>ALGORITHM\s*=\s*\w+\s+)?(?:%b)?"
    rb"(?P<security>SQL\s+SECURITY\s+\w+\s+)?(?P<kind>%b)\b(?P<rest>.*)" % (_DEFINER, _KINDS),
    _I,
)
_IN_COMMENTS = re.compile(
    rb"/\*!\d{5,6}\s+CREATE\b(?P<options>[^*]*)\*/\s*(?:/\*!\d{5,6}\s+(?P<rights>(?:[^*`]|`(?:[^`]|``)*`)*)\*/\s*)?"
    rb"/\*!\d{5,6}\s+(?P<rest>(?:%b)\b.*?)\s*\*/"
    rb"(?:\s*/\*!\d{5,6}\s+(?P<check>WITH\s+(?:CASCADED|LOCAL)\s+CHECK\s+OPTION)\s*\*/)?" % _KINDS,
    _I,
)
_IN_ONE_COMMENT = re.compile(rb"/\*!\d{5,6}\s+(CREATE\b.*?)\s*\*/", _I)
_SCHEDULE = re.compile(
    # A name of `--` begins a comment, and another event behind it.
    rb"(?P<schedule>\s+(?:IF\s+NOT\s+EXISTS\s+)?(?:`(?:[^`]|``)*`|[\w$]+)\s+ON\s+SCHEDULE"
    rb"(?:\s+(?:\w+|'[\d:. -]+'))+?"
    rb"\s+ON\s+COMPLETION\s+(?:NOT\s+)?PRESERVE\s+)"
    rb"(?P<status>ENABLE|DISABLE\s+ON\s+(?:SLAVE|REPLICA)|DISABLE)\b",
    _I,
)
_NAMED = re.compile(rb"\s+(?:IF\s+NOT\s+EXISTS\s+)?(?:%b\s*\.\s*)?(?P<name>%b)" % (_NAME, _NAME), _I)
_PLAIN = rb"(?:(?:`[^`]*`)+|[\w$\x80-\xff]+)(?![\w$\x80-\xff])"
_HEAD = re.compile(
    rb"(?P<before>\s+(?:IF\s+NOT\s+EXISTS\s+)?)(?:(?P<schema>%b)\s*\.\s*)?(?P<name>%b)(?=\s*\(|\s*AS\b|\s+ON\b)"
    % (_PLAIN, _PLAIN),
    _I,
)
"""Of what is no trigger: what it is called, and what may come behind that, so that it is the whole of its name."""
_DROPPED = rb"(?:(?:`[^`\0]*`)+|\w+)"
_DROP = re.compile(
    rb"(?P<comment>/\*!\d{5,6}\s+)?DROP\s+(?P<kind>VIEW|TRIGGER|FUNCTION|PROCEDURE|EVENT)\s+IF\s+EXISTS\s+"
    rb"(?:(?P<schema>%b)\.)?(?P<name>%b)\s*(?(comment)\*/)" % (_DROPPED, _DROPPED),
    _I,
)
_CHARSET_OF_DATABASE = re.compile(rb"ALTER\s+DATABASE\s+%b\s+CHARACTER\s+SET\s+\w+(?:\s+COLLATE\s+\w+)?" % _NAME, _I)


class UnreadableError(Exception):
    """What is made is not written as servers write it, or is another database's; for a sentence on what a file has."""


@dataclass(frozen=True)
class Schemas:
    """Where views and defaults from sequences come from and where they are made: a server names the schema of sequences
    in full, and that of views when they read another too.

    Attributes:
        source: as the dump says; empty: it says nothing.
        is_mysql: whether they are made in MySQL.
    """

    source: str
    target: str
    is_mysql: bool = False

    def has(self, schema: bytes) -> bool:
        """Whether what a dump names with this schema is its own; empty: it names none."""
        return not schema or (bool(self.source) and plain(schema).lower() == self.source.encode().lower())

    def moved(self, view: bytes) -> bytes:
        if not self.source:
            return view
        text = view.decode("utf-8", "surrogateescape")
        return moved(text, self.source, self.target).encode("utf-8", "surrogateescape")

    def within(self, trigger: bytes) -> bytes:
        """Without the schema's name before its own and its table's."""
        text = trigger.decode("utf-8", "surrogateescape")
        return within(text, self.source).encode("utf-8", "surrogateescape")

    def with_sequences_moved(self, table: bytes) -> bytes:
        """
        Raises:
            sequence_uses.ForeignSequenceError: it needs one of a schema that is neither.
        """
        text = table.decode("utf-8", "surrogateescape")
        return sequence_uses.moved(text, self.source, self.target).encode("utf-8", "surrogateescape")


def to_run(text: bytes, schemas: Schemas) -> bytes | None:
    """What to send for a statement that makes or drops something of these kinds; None: it is no such statement.

    Events are made so that they do not run: enabled ones disabled, and disabled ones as on a replica, which tells them
    apart later (programs.read).

    Raises:
        UnreadableError
        client_reads.ReadOtherwiseError
    """
    if dropped := _DROP.fullmatch(text):
        # Never in the file's words: a comment with code ends within a name that holds its end.
        if not schemas.has(dropped["schema"] or b""):
            raise UnreadableError(f"it drops a {dropped['kind'].decode().lower()} of another database")
        return b"DROP %b IF EXISTS %b" % (dropped["kind"].upper(), _quoted(dropped["name"]))
    created = _created(text)
    if created is None:
        return None
    kind, rest = created["kind"].upper(), created["rest"]
    if kind != b"TRIGGER":
        rest = _within(rest, kind, schemas)
    if kind == b"EVENT":
        scheduled = _SCHEDULE.match(rest)
        if scheduled is None:
            raise UnreadableError("it makes an event in other words than a server writes")
        status = b"DISABLE" if scheduled["status"].upper() == b"ENABLE" else b"DISABLE ON SLAVE"
        rest = scheduled["schedule"] + status + rest[scheduled.end() :]
    if kind == b"VIEW":
        rest = schemas.moved(rest)
    made = kind + rest
    if kind == b"TRIGGER":
        # In the words of who made it, which the server keeps.
        made = schemas.within(created["kind"] + rest)
        if not is_within(made.decode("utf-8", "surrogateescape")):
            raise UnreadableError("it makes a trigger of another database, or in words in which its table is not found")
    options = b"".join(created[part] or b"" for part in ("replace", "algorithm", "security"))
    text = b"CREATE " + options + made
    return one_statement.at_mysql(text, is_view=kind == b"VIEW") if schemas.is_mysql else one_statement.at_mariadb(text)


def made_by(text: bytes) -> tuple[bytes, bytes] | None:
    """Kind and name, as it is written, of what a statement of these makes; None: it makes nothing of a name alone."""
    created = _created(text)
    named = _NAMED.match(created["rest"]) if created else None
    if created is None or named is None:
        return None
    name = named["name"]
    # Without backticks, what stands before a point is the schema.
    return created["kind"].upper(), name if name.startswith(b"`") else name.rpartition(b".")[2]


def makes_event(text: bytes) -> bool:
    """Whether a statement makes an event."""
    created = _created(text)
    return created is not None and created["kind"].upper() == b"EVENT"


def _created(text: bytes) -> re.Match[bytes] | None:
    """A statement that makes something, taken out of its comments."""
    if found := _IN_COMMENTS.fullmatch(text):
        between = (found["options"].strip(), (found["rights"] or b"").strip())
        text = b" ".join((b"CREATE", *between, found["rest"], found["check"] or b"")).rstrip()
    elif found := _IN_ONE_COMMENT.fullmatch(text):
        text = found[1]
    return _CREATE.fullmatch(text)


def _within(rest: bytes, kind: bytes, schemas: Schemas) -> bytes:
    """What comes behind the kind of what is made, without the dump's own schema before its name."""
    head = _HEAD.match(rest)
    if head is None or not schemas.has(head["schema"] or b""):
        raise UnreadableError(
            f"it makes a {kind.decode().lower()} of another database, or in other words than a server writes"
        )
    return head["before"] + head["name"] + rest[head.end() :]


def _quoted(name: bytes) -> bytes:
    return name if name.startswith(b"`") else b"`%b`" % name


def is_charset_of_database(text: bytes) -> bool:
    """Whether it is what a dump sets around a routine that is older than its database's character set."""
    return _CHARSET_OF_DATABASE.fullmatch(text) is not None
