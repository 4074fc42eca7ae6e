"""What the server says against a statement of an upload, as the error that the uploader gets.

Decided by SQLSTATE (PostgreSQL's manual, appendix A) and by how the statement begins, never by the message's wording:
servers speak many languages.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from agent.engines.pg.server.text_errors import (
    DISK_FULL,
    LEFT_OUT_BY_HAND,
    OUT_OF_LOCKS,
    made_outside_of_schemas,
)
from common.errors import (
    AppUnavailableError,
    ArchiveDamagedError,
    ArchiveIncompatibleError,
    ArchiveRefusedError,
    NoSpaceError,
    ServiceError,
    ToolFailedError,
)

_MAJOR = re.compile(r"\d+")
_EXTENSION = re.compile(r'CREATE\s+EXTENSION\s+(?:IF\s+NOT\s+EXISTS\s+)?("(?:[^"]|"")*"|\w+)', re.IGNORECASE)
_DISABLES_TRIGGERS = re.compile(r"ALTER\s+TABLE\s.*\s(?:DISABLE|ENABLE)\s+TRIGGER\s+ALL", re.IGNORECASE | re.DOTALL)
_SWITCHES_TRIGGERS_OFF = re.compile(r"SET\s+(?:SESSION\s+)?session_replication_role\b", re.IGNORECASE)
_INSERTS = re.compile(r"INSERT\s+INTO\s+(\S+)", re.IGNORECASE)
_FOREIGN_TABLE = re.compile(r'CREATE\s+FOREIGN\s+TABLE\s+((?:"(?:[^"]|"")*"|[^\s("])+)', re.IGNORECASE)
_OTHER_USER = re.compile(r"SET\s+(?:SESSION\s+AUTHORIZATION|ROLE)\b", re.IGNORECASE)
_ROLE = re.compile(r"(?:CREATE|ALTER|DROP)\s+(?:ROLE|GROUP|USER(?!\s+MAPPING))\b", re.IGNORECASE)
_SUPERUSERS_OWN = re.compile(
    r"CREATE\s+(?:OR\s+REPLACE\s+)?(?:TRUSTED\s+|PROCEDURAL\s+)*"
    r"(?:FUNCTION|PROCEDURE|OPERATOR|TYPE|TEXT\s+SEARCH|CONVERSION)\b",
    re.IGNORECASE,
)
_FILLS = re.compile(r"REFRESH\s+MATERIALIZED\s+VIEW\s+(.+)\Z", re.IGNORECASE | re.DOTALL)
_CAUSED_BY_VERSIONS = frozenset(
    {
        "0A000",  # feature_not_supported
        "22023",  # invalid_parameter_value: of a setting or a storage parameter
        "42601",  # syntax_error
        "42703",  # undefined_column, of the system catalogue
        "42704",  # undefined_object: a type, a setting, a collation
        "42846",  # cannot_coerce
        "42883",  # undefined_function
        "42P01",  # undefined_table, as a new view of the system catalogue
        "42P17",  # invalid_object_definition: a new collation provider
    }
)
"""What an older server says against something that only a newer one knows."""


@dataclass(frozen=True)
class Failure:
    """A failed statement, as the loader reports it.

    Attributes:
        line: where it begins in the SQL text; for an archive, in the text that pg_restore makes of it.
        sqlstate: empty when the connection broke.
        head: how it begins.
        has_tables: the text made a table before.
        is_inside_code: it was not the statement itself that failed but a function that it called.
    """

    line: int
    sqlstate: str
    message: str
    head: str
    source_version: str
    has_tables: bool
    is_inside_code: bool


def explain(failure: Failure, *, server_version_num: int) -> ServiceError:
    """The error to raise."""
    where = f"Line {failure.line} of the dump"
    said = f"{where}: {failure.message}"
    view = _FILLS.match(failure.head)
    # A foreign server that does not answer is one of 08.
    if view is not None and failure.sqlstate[:2] not in ("", "40", "53", "57", "XX"):
        return _not_filled(failure, where, view[1])
    extension = _EXTENSION.match(failure.head)
    if extension is not None and _is_about_content(failure.sqlstate):
        is_missing = failure.sqlstate in ("0A000", "58P01")
        return ArchiveIncompatibleError(
            f"{where} needs the extension {extension[1]}, which the import cannot create: {failure.message}.",
            next_step=(
                "Install it for this server (another image of it may have it), then let" if is_missing else "Let"
            )
            + " an administrator create the extension in the app's database, then import again.",
        )
    if _OTHER_USER.match(failure.head) and failure.sqlstate in ("22023", "42704"):
        return _not_permitted(failure, where)
    match failure.sqlstate[:2], failure.sqlstate:
        case "", _:
            return AppUnavailableError(f"PostgreSQL went away: {failure.message}", next_step="See whether it runs.")
        case (("08" | "57" | "58" | "XX"), _):
            return AppUnavailableError(f"PostgreSQL ended the import: {failure.message}", next_step="See its log.")
        case _, "53100":
            return NoSpaceError(
                f"The disk of the PostgreSQL server is full: {failure.message}",
                next_step=DISK_FULL,
            )
        case _, "53200":
            return ToolFailedError(f"PostgreSQL could not go on: {said}", next_step=OUT_OF_LOCKS)
        case _, "55000":
            return ArchiveIncompatibleError(
                f"{said}. Beside the app's database no foreign server is reached while a file is loaded, and nowhere "
                "has a materialized view rows before its turn.",
                next_step="Leave out what reads foreign tables while the dump is loaded; a dump made by pg_dump reads "
                "none of them before it fills materialized views.",
            )
        case (("53" | "40" | "55"), _):
            return ToolFailedError(f"PostgreSQL could not go on: {said}", next_step="Try again.")
        case _, "42501":
            return _not_permitted(failure, where)
        case _, "0A000" if failure.is_inside_code:
            return ArchiveRefusedError(
                f"{where} runs a function of its own that does what no function may do there: {failure.message}."
            )
        case _, "42P01" if not failure.has_tables:
            return ArchiveIncompatibleError(
                f"{said}. The dump has rows but no tables, as with --data-only.", next_step="Make a dump of everything."
            )
        case (("22" | "23"), "22P05"):
            return ArchiveIncompatibleError(f"{said}. The app's database cannot hold such characters.")
        case (("22" | "23"), "22021"):
            return ArchiveIncompatibleError(
                f"{said}. The text is in another encoding than the dump says, or damaged.",
                next_step="A database in SQL_ASCII does not know its encoding: dump it with the one that its text is "
                "in, for example --encoding=LATIN1. If the source is in another, take another copy of the file.",
            )
        case (("22" | "23"), _) if failure.sqlstate != "22023":
            return ArchiveDamagedError(f"{said}. The rows do not fit the dump's own tables.")
    if failure.sqlstate == "42704" and failure.head.upper().startswith("CREATE POLICY"):
        return ArchiveIncompatibleError(
            f"{said}. A row security policy of the dump is made for a role that this server does not have.",
            next_step="Create the role, or dump without that policy.",
        )
    return _not_understood(failure, said, server_version_num)


def _is_about_content(sqlstate: str) -> bool:
    return sqlstate[:2] not in ("", "08", "53", "57", "XX")


def _not_filled(failure: Failure, where: str, view: str) -> ServiceError:
    """Its query ran before, with other rights or settings, or beside other servers than an import has."""
    error = ArchiveRefusedError if failure.sqlstate == "42501" else ArchiveIncompatibleError
    return error(
        f"{where} fills the materialized view {view}, and its query fails in an import: {failure.message}.",
        next_step=f"Dump without its rows (pg_dump --exclude-table-data={shlex.quote(view)}), import that, then run "
        f"REFRESH MATERIALIZED VIEW {view};",
    )


def _not_permitted(failure: Failure, where: str) -> ServiceError:
    if _DISABLES_TRIGGERS.match(failure.head) or _SWITCHES_TRIGGERS_OFF.match(failure.head):
        return ArchiveRefusedError(
            f"{where} switches triggers and constraints off, as with --disable-triggers; only a superuser may: "
            f"{failure.message}.",
            next_step="Make a dump of everything with pg_dump, without --disable-triggers.",
        )
    if (table := _INSERTS.match(failure.head)) and not failure.is_inside_code:
        return ArchiveRefusedError(
            f"{where} adds rows to {table[1]}, which is not the dump's own, as an extension's is not: "
            f"{failure.message}.",
            next_step=f"Dump without them: pg_dump --exclude-table-data={shlex.quote(table[1])}.",
        )
    if table := _FOREIGN_TABLE.match(failure.head):
        return ArchiveIncompatibleError(
            f"{where} makes the foreign table {table[1]}, which an import may not: {failure.message}.",
            next_step="Dump without it and what needs it (pg_dump "
            f"--exclude-table={shlex.quote(table[1])}), import that, and let a superuser make it again.",
        )
    if _OTHER_USER.match(failure.head):
        return ArchiveRefusedError(
            f"{where} tries to become another role: {failure.message}.",
            next_step="Dump with --no-owner --no-privileges, without --use-set-session-authorization.",
        )
    if _ROLE.match(failure.head):
        return ArchiveRefusedError(
            f"{where} makes or changes a role, which belongs to the server and not to a database: {failure.message}.",
            next_step="Import what pg_dump writes alone, without the roles of pg_dumpall.",
        )
    if _SUPERUSERS_OWN.match(failure.head):
        return ArchiveIncompatibleError(
            f"{where} makes something that only a superuser may make: {failure.message}.",
            next_step=f"{LEFT_OUT_BY_HAND} Or make it part of an extension that an administrator creates in the app's "
            "database first.",
        )
    if found := made_outside_of_schemas(failure.head):
        thing, next_step = found
        text = f"{where} makes {thing}, which an import may not: {failure.message}."
        return ArchiveIncompatibleError(text, next_step=next_step)
    return ArchiveRefusedError(
        f"{where} tries something that an import may not do: {failure.message}.",
        next_step="Dump with --no-owner --no-privileges and without --create, or in custom format.",
    )


def _not_understood(failure: Failure, said: str, server_version_num: int) -> ServiceError:
    source = _MAJOR.match(failure.source_version)
    server_major = server_version_num // 10_000
    if source and int(source[0]) > server_major and failure.sqlstate in _CAUSED_BY_VERSIONS:
        return ArchiveIncompatibleError(
            f"The dump was made from PostgreSQL {source[0]}, this server is {server_major}, and it does not take "
            f"all of it. {said}.",
            next_step=f"Import into PostgreSQL {source[0]} or newer.",
        )
    if failure.sqlstate in ("42601", "25P02", "25001"):
        return ArchiveDamagedError(f"{said}. This is not what pg_dump writes.")
    return ArchiveIncompatibleError(f"PostgreSQL {server_major} does not take the dump. {said}.")
