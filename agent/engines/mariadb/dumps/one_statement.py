"""A view, trigger, routine or event sent to a server as one statement, whatever its text says.

MariaDB takes the text as digits, for EXECUTE IMMEDIATE. MySQL does so with views alone; all else goes through its
client as text between DELIMITER lines, and the one fact to know: of such a text the server carries out all statements
that are in it. So one that no server has said is shown to the server first, as digits, for PREPARE, which takes no
several; where it is one that is never prepared, it says so.
"""

from __future__ import annotations

import re
import secrets

_COMMAND = re.compile(rb"delimiter\s", re.IGNORECASE)
"""MySQL's client takes it for its own wherever it stands but in strings and comments, as the client sees them."""
_PREFIX = "mathison_"
_NOT_PREPARED = 1295
_DELIMITER_BYTES = 15
"""The longest of a client of MySQL's."""


class ClientCommandError(Exception):
    """A text with the word DELIMITER, of which the client program would not pass on what comes after it."""


def at_mariadb(text: bytes) -> bytes:
    """What carries out a text, without a semicolon."""
    return b"EXECUTE IMMEDIATE 0x" + text.hex().encode()


def at_mysql(text: bytes, *, is_view: bool, is_known: bool = False) -> bytes:
    """The same for MySQL.

    Args:
        text: in the session's character set; it makes something.
        is_known: a server has said it, so it is one statement. If not, who sends it has to be allowed to make
            procedures.
    Raises:
        ClientCommandError
    """
    set_text = b"SET @mathison = 0x" + text.hex().encode()
    if is_view:
        return set_text + b"; PREPARE mathison FROM @mathison; EXECUTE mathison; DEALLOCATE PREPARE mathison"
    require_no_command(text)
    unguessed = secrets.token_hex(8)[:_DELIMITER_BYTES].encode()
    sent = b"DELIMITER %b\n%b\n%b\nDELIMITER ;\n" % (unguessed, text, unguessed)
    return (b"" if is_known else set_text + b";\n" + _judging(unguessed)) + sent + b"SET @mathison = NULL"


def require_no_command(text: bytes) -> None:
    """Raise ClientCommandError where a text that makes no view cannot be sent to MySQL."""
    if _COMMAND.search(text):
        raise ClientCommandError


def _judging(unguessed: bytes) -> bytes:
    """Has the server refuse @mathison where it is anything but one statement, read with the session's settings: a
    procedure keeps those under which it is made.
    """
    name = b"`%b%b`" % (_PREFIX.encode(), unguessed)
    return (
        b"DELIMITER %b\nCREATE PROCEDURE %b() BEGIN DECLARE EXIT HANDLER FOR %d BEGIN END;"
        b" PREPARE mathison FROM @mathison; END\n%b\nDELIMITER ;\nCALL %b(); DROP PROCEDURE %b;\n"
        % (unguessed, name, _NOT_PREPARED, unguessed, name, name)
    )
