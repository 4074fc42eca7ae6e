"""A view, trigger, routine or event sent to a server as one statement, whatever its text says.

MariaDB takes the text as digits, for EXECUTE IMMEDIATE. MySQL does so with views alone; all else goes through its
client as text between DELIMITER lines, and there are two facts to know. Of such a text the server carries out all
statements that are in it. So one that no server has said is shown to the server first, as digits, for PREPARE, which
takes no several; where it is one that is never prepared, it says so. And the client reads the text, too, not quite as
the server does: see `client_reads`.
"""

from __future__ import annotations

import secrets

from agent.engines.mariadb.dumps import client_reads

_PREFIX = "mathison_"
_NOT_PREPARED = 1295
_DELIMITER_BYTES = 15
"""The longest of a client of MySQL's."""


def at_mariadb(text: bytes) -> bytes:
    """What carries out a text, without a semicolon."""
    return b"EXECUTE IMMEDIATE 0x" + text.hex().encode()


def at_mysql(text: bytes, *, is_view: bool, is_known: bool = False, sql_mode: str = "") -> bytes:
    """The same for MySQL.

    Args:
        text: in the session's character set; it makes something.
        is_known: a server has said it, so it is one statement. If not, who sends it has to be allowed to make
            procedures.
        sql_mode: the session's.
    Raises:
        client_reads.ReadOtherwiseError
    """
    set_text = b"SET @mathison = 0x" + text.hex().encode()
    if is_view:
        return set_text + b"; PREPARE mathison FROM @mathison; EXECUTE mathison; DEALLOCATE PREPARE mathison"
    client_reads.require_as_it_is(text, sql_mode)
    unguessed = secrets.token_hex(8)[:_DELIMITER_BYTES].encode()
    sent = b"DELIMITER %b\n%b\n%b\nDELIMITER ;\n" % (unguessed, text, unguessed)
    return (b"" if is_known else set_text + b";\n" + _judging(unguessed)) + sent + b"SET @mathison = NULL"


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
