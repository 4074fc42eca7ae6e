"""What an import is called in the server, and how names are written; `key` is 12 digits of hex."""

from __future__ import annotations

import re

_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|`[^`]*(?:``[^`]*)*`\.?""", re.DOTALL)
"""A string, or a name with the point after it."""
_NAME = r"""(?:`(?:[^`]|``)*`|"(?:[^"]|"")*"|[\w$\x80-\U0010ffff\udc80-\udcff]+)"""
_TRIGGER = re.compile(
    rf"(?P<kind>(?:CREATE (?:OR REPLACE )?(?:DEFINER={_NAME}(?:@{_NAME})? )?)?"
    rf"TRIGGER\s+(?:IF\s+NOT\s+EXISTS\s+)?)(?:(?P<own>{_NAME})\s*\.\s*)?(?P<name>{_NAME})"
    rf"(?P<when>\s+(?:BEFORE|AFTER)\s[\w\s,]*?\bON\s+)(?:(?P<schema>{_NAME})\s*\.\s*)?(?P<table>{_NAME})",
    re.IGNORECASE,
)
"""A trigger's text keeps the words of who made it."""


def new_schema(key: str) -> str:
    """Where the upload is loaded, and where imported tables go back to in an undo."""
    return f"mathison_new_{key}"


def old_schema(key: str) -> str:
    """Where the previous tables are kept."""
    return f"mathison_old_{key}"


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


def moved(view: str, source: str, target: str) -> str:
    """A view's text for another schema; empty: for the current one. Where a view reads more than its own schema, the
    server writes its names in full."""
    before, after = f"{quoted(source)}.", f"{quoted(target)}." if target else ""
    return _QUOTED.sub(lambda found: after if found[0] == before else found[0], view)


def within(trigger: str, schema: str) -> str:
    """A trigger's text with that schema's name left out before its own and its table's name."""

    def named(found: re.Match[str], part: str, what: str) -> str:
        qualifier = found[part] or ""
        bare = plain(qualifier) if qualifier.startswith("`") else qualifier.strip('"').replace('""', '"')
        return found[what] if bare in ("", schema) else f"{qualifier}.{found[what]}"

    found = _TRIGGER.match(trigger)
    if found is None:
        return trigger
    head = found["kind"] + named(found, "own", "name") + found["when"] + named(found, "schema", "table")
    return head + trigger[found.end() :]


def without_strings(text: str) -> str:
    """SQL as the server writes it, with its strings emptied."""
    return _QUOTED.sub(lambda found: found[0] if found[0].startswith("`") else "''", text)
