"""What an import is called in the server, and how names are written; `key` is 12 digits of hex."""

from __future__ import annotations

import re

_NAME = r"""(?:`(?:[^`]|``)*`|"(?:[^"]|"")*"|[\w$\x80-\U0010ffff\udc80-\udcff]+)"""
_GAP = r"(?:\s|/\*(?![!M])[^*]*\*+(?:[^/*][^*]*\*+)*/|--(?:[^\S\n][^\n]*)?\n|\#[^\n]*\n)"
"""A blank or a comment, but none with code; read in one way only, since it may be anybody's text."""
_GAPS = _GAP + "+"
_BEFORE_NAME, _AFTER_NAME = rf"(?:{_GAPS}|(?=[`\"]))", rf"(?:{_GAPS}|(?<=[`\"]))"
"""A name in quotes needs none."""
_TRIGGER = re.compile(
    rf"(?P<kind>(?:CREATE{_GAPS}(?:OR{_GAPS}REPLACE{_GAPS})?(?:DEFINER={_NAME}(?:@{_NAME})?{_GAPS})?)?"
    rf"TRIGGER{_BEFORE_NAME}(?:IF{_GAPS}NOT{_GAPS}EXISTS{_BEFORE_NAME})?)"
    rf"(?:(?P<own>{_NAME}){_GAP}*\.{_GAP}*)?(?P<name>{_NAME})"
    rf"(?P<when>{_AFTER_NAME}(?:BEFORE|AFTER){_GAP}(?:[\w,]|{_GAP})*?\bON{_BEFORE_NAME})"
    rf"(?:(?P<schema>{_NAME}){_GAP}*\.{_GAP}*)?(?P<table>{_NAME})",
    re.IGNORECASE | re.DOTALL,
)
"""A trigger's text keeps the words of who made it."""
_EACH_ROW = re.compile(rf"{_AFTER_NAME}FOR\b", re.IGNORECASE | re.DOTALL)


def new_schema(key: str) -> str:
    """Where the upload is loaded, and where imported tables go back to in an undo."""
    return f"mathison_new_{key}"


def old_schema(key: str) -> str:
    """Where the previous tables are kept."""
    return f"mathison_old_{key}"


def aside(schema: str, number: int) -> str:
    """A table of the app's schema that is on its way to or from another one."""
    return f"{schema}_{number}"


def stand_in(key: str, number: int) -> str:
    """A trigger, or a foreign key, as long as its own name is another's."""
    return f"mathison_{key}_{number}"


def is_stand_in(name: str, key: str) -> bool:
    """Whether it is one."""
    return name.startswith(f"mathison_{key}_")


def loader(key: str) -> str:
    """The throw-away account that loads; without a host name, from anywhere."""
    return f"mathison_load_{key}"


def quoted(name: str) -> str:
    """A name as SQL needs it."""
    return "`" + name.replace("`", "``") + "`"


def account(told: str) -> str:
    """An account as a GRANT needs it, of what CURRENT_USER() tells."""
    user, _, host = told.rpartition("@")
    return f"{quoted(user)}@{quoted(host)}"


def plain(name: str) -> str:
    """What a quoted name is."""
    return name[1:-1].replace("``", "`")


def within(trigger: str, schema: str) -> str:
    """A trigger's text with its schema's name left out before its own and its table's name, in whichever case somebody
    wrote it: the server has looked at that."""

    def named(found: re.Match[str], part: str, what: str) -> str:
        qualifier = found[part] or ""
        return found[what] if bare(qualifier).lower() in ("", schema.lower()) else f"{qualifier}.{found[what]}"

    found = _TRIGGER.match(trigger)
    if found is None:
        return trigger
    head = found["kind"] + named(found, "own", "name") + found["when"] + named(found, "schema", "table")
    return head + trigger[found.end() :]


def is_within(trigger: str) -> bool:
    """Whether a trigger's text names neither its own nor its table's schema; False, too, where it does not tell."""
    found = _TRIGGER.match(trigger)
    return (
        found is not None
        and not (found["own"] or found["schema"])
        # Else a point may come behind a comment, and what looks like the table be its schema.
        and _EACH_ROW.match(trigger, found.end()) is not None
    )


def table_of(trigger: str) -> str | None:
    """The table on which a trigger of `within` is; None where its text does not tell."""
    found = _TRIGGER.match(trigger)
    return bare(found["table"]) if found and not found["schema"] else None


def called(trigger: str, name: str, *, table: str) -> str:
    """The text of a trigger that `table_of` knows, with another name and on another table."""
    found = _TRIGGER.match(trigger)
    if found is None:
        return trigger
    return f"CREATE TRIGGER {quoted(name)}{found['when']}{quoted(table)}{trigger[found.end() :]}"


def bare(name: str) -> str:
    """What a name is that may be in quotes."""
    return plain(name) if name.startswith("`") else name.strip('"').replace('""', '"')
